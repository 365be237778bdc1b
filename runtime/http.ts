import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Metrics } from './metrics.ts';

export interface Readiness {
  readonly ready: boolean;
  readonly reason: string;
}

export interface OpsServer {
  readonly url: string;
  close(): Promise<void>;
}

/**
 * The operations endpoints every stage has, on a port of their own so that they answer while the public
 * one is saturated: GET /healthz (200 while the process runs), /readyz (200, or 503 with a reason),
 * /metrics. Port 0 takes any free port; `url` says which. Throws what listen() throws (EADDRINUSE).
 */
export async function startOpsServer(o: {
  host: string;
  port: number;
  metrics: Metrics;
  readiness: () => Readiness;
}): Promise<OpsServer> {
  const server = createServer((request, response) => {
    const send = (status: number, type: string, body: string) => {
      response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
      response.end(request.method === 'HEAD' ? undefined : body);
    };
    request.resume();
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('allow', 'GET, HEAD');
      return send(405, 'text/plain', 'method not allowed\n');
    }
    const path: string = request.url?.split('?', 1)[0] ?? '';
    switch (path) {
      case '/healthz':
        return send(200, 'application/json', '{"status":"alive"}\n');
      case '/readyz': {
        const { ready, reason } = o.readiness();
        return ready
          ? send(200, 'application/json', '{"ready":true}\n')
          : send(503, 'application/json', `${JSON.stringify({ ready, reason })}\n`);
      }
      case '/metrics':
        o.metrics.render().then(
          (body) => send(200, o.metrics.registry.contentType, body),
          (error: unknown) => send(500, 'text/plain', `${String(error)}\n`),
        );
        return;
      default:
        return send(404, 'text/plain', 'not found\n');
    }
  });
  server.requestTimeout = 10_000;
  server.maxConnections = 64;
  await listen(server, o.host, o.port);
  return {
    url: `http://${hostInUrl(o.host)}:${(server.address() as AddressInfo).port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

/** An address as it stands in a URL that this machine can open. */
export function hostInUrl(host: string): string {
  if (host === '0.0.0.0' || host === '::') return '127.0.0.1';
  return host.includes(':') ? `[${host}]` : host;
}
