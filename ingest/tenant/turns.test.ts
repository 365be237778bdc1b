import { expect, test } from 'vitest';
import { Account } from './account.ts';
import { Turns, TURN_BYTES_MAX } from './turns.ts';

/** Turns of an event loop that the test lets go round. */
function loop(): { turns: Turns; goRound: () => boolean } {
  let deferred: (() => void)[] = [];
  const turns = new Turns((run) => void deferred.push(run));
  return {
    turns,
    goRound() {
      const now = deferred;
      deferred = [];
      for (const run of now) run();
      return deferred.length > 0;
    },
  };
}

test('a tenant is read at once up to the bound of a turn, then waits, and the others do not', () => {
  const { turns, goRound } = loop();
  const [busy, quiet] = [new Account('busy'), new Account('quiet')];
  const half = TURN_BYTES_MAX / 2;
  expect([turns.now(busy, half), turns.now(busy, half), turns.now(busy, 1)]).toEqual([true, true, false]);
  expect(turns.now(quiet, half)).toBe(true);
  goRound();
  expect(turns.now(busy, half)).toBe(true);
});

test('the largest body is read at once when it is the first of its turn', () => {
  const { turns } = loop();
  expect(turns.now(new Account('one'), TURN_BYTES_MAX * 32)).toBe(true);
});

test('a body that comes after a waiting one of its tenant waits too: bodies are read in order', () => {
  const { turns, goRound } = loop();
  const busy = new Account('busy');
  const read: number[] = [];
  turns.now(busy, TURN_BYTES_MAX);
  for (let at = 0; at < 3; at++) {
    expect(turns.now(busy, 1)).toBe(false);
    turns.wait(busy, { bytes: 1, read: () => read.push(at) });
  }
  expect(turns.waiting).toBe(3);
  while (goRound());
  expect(read).toEqual([0, 1, 2]);
  expect(turns.waiting).toBe(0);
  expect(turns.now(busy, 1)).toBe(true);
});

test('waiting tenants are served in rotation, and a turn ends at its bound', () => {
  const { turns, goRound } = loop();
  const accounts = ['a', 'b'].map((tenant) => new Account(tenant));
  let read: string[] = [];
  for (const account of accounts) {
    turns.now(account, TURN_BYTES_MAX);
    for (let at = 0; at < 2; at++) {
      const bytes = TURN_BYTES_MAX / 2;
      turns.wait(account, { bytes, read: () => read.push(account.tenant) });
    }
  }
  const rounds: string[][] = [];
  for (let more = true; more;) {
    more = goRound();
    rounds.push(read);
    read = [];
  }
  // Two of half a bound fit into a turn: one of each tenant.
  expect(rounds.filter((round) => round.length > 0)).toEqual([
    ['a', 'b'],
    ['a', 'b'],
  ]);
});

test('what a body does when it is read may make another wait', () => {
  const { turns, goRound } = loop();
  const busy = new Account('busy');
  const read: string[] = [];
  turns.now(busy, TURN_BYTES_MAX);
  turns.wait(busy, {
    bytes: 1,
    read() {
      read.push('first');
      if (!turns.now(busy, TURN_BYTES_MAX * 2)) {
        turns.wait(busy, { bytes: 1, read: () => read.push('second') });
      } else read.push('at once');
    },
  });
  while (goRound());
  expect(read).toEqual(['first', 'at once']);
});
