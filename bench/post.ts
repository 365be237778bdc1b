// One POST of events to an edge over node:http, for what counts answers and not how fast they come.
import { request, type Agent } from 'node:http';

/** Resolves with the status once the answer is read. */
export function postEvents(agent: Agent, port: number, key: string, body: Buffer): Promise<number> {
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        agent,
        host: '127.0.0.1',
        port,
        method: 'POST',
        path: '/v1/events',
        headers: {
          authorization: `Bearer ${key}`,
          'content-type': 'application/json',
          'content-length': body.length,
        },
      },
      (answer) => {
        answer.resume();
        answer.once('end', () => resolve(answer.statusCode ?? 0));
      },
    );
    sent.once('error', reject);
    sent.end(body);
  });
}
