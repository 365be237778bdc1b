// Clients that nobody wants, in a process of their own. Its argument is a HostilePlan; it prints {"ready":true} once
// it does its worst and goes on until it is ended.
import { connect, type Socket } from 'node:net';
import { bodyOf } from './event.ts';
import type { Hostile, HostilePlan } from './hostile-plan.ts';

const STEP_MS = 100;
const OPENING_AT_A_TIME = 200;
/** Events of one flooding body: as many as a request may have. */
const FLOOD_EVENTS = 10_000;

const plan = JSON.parse(process.argv[2] ?? '') as HostilePlan;
const { port, key } = plan;

const postHead = (length: number): string =>
  `POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ${key}\r\n` +
  `Content-Type: application/json\r\nContent-Length: ${length}\r\n\r\n`;

const upgrade =
  `GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ${key}\r\nUpgrade: websocket\r\n` +
  'Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n' +
  'Sec-WebSocket-Protocol: tallyline.v1.json\r\n\r\n';

function open(): Promise<Socket> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port, noDelay: true });
    // A server may end any of these whenever it likes.
    socket.on('error', () => undefined);
    socket.once('connect', () => resolve(socket));
    socket.once('close', () => resolve(socket));
  });
}

async function openAll(each: (socket: Socket) => void): Promise<void> {
  for (let opened = 0; opened < plan.connections; opened += OPENING_AT_A_TIME) {
    const count = Math.min(OPENING_AT_A_TIME, plan.connections - opened);
    for (const socket of await Promise.all(Array.from({ length: count }, open))) each(socket);
  }
}

/** Sends the bytes one by one, forever: what ends the connection begins another. */
function drip(first: string, then: () => Buffer): void {
  const begin = async (): Promise<void> => {
    const socket = await open();
    socket.resume();
    socket.write(first);
    const timer = setInterval(() => socket.write(then()), STEP_MS);
    socket.once('close', () => {
      clearInterval(timer);
      setTimeout(() => void begin(), STEP_MS);
    });
  };
  void begin();
}

/** A frame with a mask of zero. */
function frame(payload: Buffer, opcode: number, final: boolean): Buffer {
  const long = payload.length >= 126;
  const head = Buffer.alloc(long ? 8 : 6);
  head[0] = (final ? 0x80 : 0) | opcode;
  head[1] = 0x80 | (long ? 126 : payload.length);
  if (long) head.writeUInt16BE(payload.length, 2);
  return Buffer.concat([head, payload]);
}

const actions: Readonly<Record<Hostile, () => Promise<void> | void>> = {
  /** The largest bodies that are taken, one after the other on every connection. */
  async flood() {
    const time = new Date().toISOString();
    const body = bodyOf(0, FLOOD_EVENTS, time);
    const request = Buffer.concat([Buffer.from(postHead(body.length)), body]);
    await openAll((socket) => {
      socket.write(request);
      socket.on('data', () => socket.write(request));
    });
  },
  'slow-headers'() {
    for (let at = 0; at < plan.connections; at++) {
      drip('POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ', () => Buffer.from('a'));
    }
  },
  'slow-bodies'() {
    for (let at = 0; at < plan.connections; at++) drip(`${postHead(1_000_000)}[`, () => Buffer.from(' '));
  },
  /** One message in fragments of a byte. */
  'one-byte-frames'() {
    for (let at = 0; at < plan.connections; at++) {
      let first = true;
      drip(upgrade, () => {
        const bytes = frame(Buffer.from(first ? '{' : ' '), first ? 1 : 0, false);
        first = false;
        return bytes;
      });
    }
  },
  /** Batches whose every event is refused, so that the answers are long, and none of them is read. */
  async 'unread-answers'() {
    const bad = Array.from({ length: 200 }, (_, at) => ({ id: `unread-${at}`, type: 't' }));
    let number = 0;
    await openAll((socket) => {
      socket.pause();
      socket.write(upgrade);
      const timer = setInterval(() => {
        const text = JSON.stringify({ batch: number++, events: bad });
        socket.write(frame(Buffer.from(text), 1, true));
      }, STEP_MS / 10);
      socket.once('close', () => clearInterval(timer));
    });
  },
  /** Half a request, half an upgrade, a stream, and then nothing more from a process that is stopped by its parent. */
  async 'half-open'() {
    let at = 0;
    await openAll((socket) => {
      at += 1;
      socket.write(at % 3 === 0 ? upgrade : at % 3 === 1 ? `${postHead(1_000)}[` : 'POST /v1/ev');
    });
  },
  async 'idle-streams'() {
    let upgraded = 0;
    await openAll((socket) => {
      socket.write(upgrade);
      socket.once('data', (bytes: Buffer) => {
        if (bytes.toString('latin1', 0, 12).startsWith('HTTP/1.1 101')) upgraded += 1;
      });
    });
    while (upgraded < plan.connections) {
      await new Promise((resolve) => setTimeout(resolve, STEP_MS));
      process.stdout.write(`${JSON.stringify({ upgraded })}\n`);
    }
  },
};

await actions[plan.kind]();
process.stdout.write('{"ready":true}\n');
setInterval(() => undefined, 60_000);
