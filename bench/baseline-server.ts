// What the edge is compared with: uWebSockets.js doing as little as a server can, with the same bodies and
// answers of about the same length. `empty` reads the body and answers; `parse` also runs JSON.parse over it.
// Prints its port and serves until its parent ends it.
import { App, us_socket_local_port } from 'uWebSockets.js';
import type { HttpResponse, us_listen_socket } from 'uWebSockets.js';

const parses = process.argv[2] === 'parse';
const ANSWER = '{"accepted":100,"rejected":[]}';

function read(body: Uint8Array): void {
  if (parses) JSON.parse(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8'));
}

const app = App();
app.post('/v1/events', (res: HttpResponse) => {
  let pieces: Buffer[] | null = null;
  let aborted = false;
  res.onAborted(() => (aborted = true));
  res.onData((chunk, isLast) => {
    if (!isLast) {
      (pieces ??= []).push(Buffer.from(new Uint8Array(chunk)));
      return;
    }
    if (pieces === null) read(new Uint8Array(chunk));
    else read(Buffer.concat([...pieces, new Uint8Array(chunk)]));
    if (aborted) return;
    res.cork(() => {
      res.writeStatus('202 Accepted').writeHeader('Content-Type', 'application/json').end(ANSWER);
    });
  });
});
app.ws('/v1/stream', {
  compression: 0 as never,
  maxPayloadLength: 16 * 1024 * 1024,
  idleTimeout: 60,
  message(socket, frame) {
    const bytes = new Uint8Array(frame);
    read(bytes);
    // The load counts on the digit of its batch coming back.
    socket.send(
      `{"type":"ack","batch":${String.fromCharCode(bytes[9]!)},"accepted":100,"rejected":[]}`,
      false,
    );
  },
});
app.listen('127.0.0.1', 0, (socket: us_listen_socket | false) => {
  if (socket === false) throw new Error('cannot listen');
  process.stdout.write(`${JSON.stringify({ port: us_socket_local_port(socket) })}\n`);
});
process.on('disconnect', () => process.exit(0));
