// What networks do to the three connections that everything depends on, by the proxies between the processes.
import { pauseFor, type Round, type Row } from './row.ts';
import { between } from './random.ts';
import { LINKS } from './proxies.ts';
import { FAULTS, type NetworkFault } from './proxy.ts';

const FAULT_MS_LEAST = 300;
const FAULT_MS_MOST = 2_000;
/** Longer than a ping unanswered twice (20 s), so that the drivers find out by themselves. */
const FAULT_MS_LONG = 35_000;

/**
 * Each of the three connections has its turn, and the others join in now and then. In the end it heals by itself or
 * by a reset. In the long form nobody is told anything: who waits has to give up by himself.
 */
function network(fault: NetworkFault): (round: Round) => Promise<void> {
  return async ({ world, random, number, long }) => {
    const turn = LINKS[(number - 1) % LINKS.length]!;
    const links = LINKS.filter((link) => link === turn || random() < 1 / LINKS.length);
    const lasting = between(random, FAULT_MS_LEAST, FAULT_MS_MOST);
    // Half-open connections stay so until they are reset; a hole may simply close.
    const reset = fault === 'half open' || random() < 0.5;
    world.note(`${fault}: ${links.join(', ')}, for ${long ? FAULT_MS_LONG : lasting} ms`);
    for (const link of links) world.proxies.get(link)!.begin(fault);
    await pauseFor(long ? FAULT_MS_LONG : lasting);
    for (const link of links) world.proxies.get(link)!.end({ reset: reset && !long });
  };
}

const HOLDS: Readonly<Record<NetworkFault, string>> = {
  slow: 'every piece between the processes waits up to 80 ms: time-outs and repeats change no total',
  sliced: 'what the processes send arrives in slices of one to seven bytes: it is read as it was sent',
  resetting:
    'connections are reset after any number of bytes, in the middle of a block, an acknowledgement or an insert: the same',
  'black hole': 'nothing goes by and nobody is told; what was under way arrives late or never: the same',
  'half open':
    'the far end is gone and the near end was not told: it finds out, and nothing that it sent into nowhere is lost',
};

export const NETWORK_ROWS: readonly Row[] = FAULTS.map((fault) => ({
  name: `network-${fault.replace(' ', '-')}`,
  holds: HOLDS[fault],
  world: { journal: false, proxied: true },
  kills: false,
  round: network(fault),
}));
