import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';
import type { Server } from 'node:net';

function listen(port: number): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen({ host: '127.0.0.1', port, exclusive: true }, () => resolve(server));
  });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => server.close(() => resolve()));
}

// Below the ports that systems give to outgoing connections (from 32768 on Linux): a server that is stopped and
// started again must find its port free.
const portMin = 10_000;
const portMax = 32_000;

async function listenSomewhere(): Promise<Server> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await listen(randomInt(portMin, portMax));
    } catch (error) {
      if (attempt === 100) throw error;
    }
  }
}

/**
 * Returns `count` different ports that nothing listens on at 127.0.0.1. All are held until the last one is
 * found, so that they differ. Another process may still take one before it is used: whoever binds it must
 * report a taken port.
 */
export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(Array.from({ length: count }, listenSomewhere));
  const ports = servers.map((server) => {
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('a listening socket has no port');
    return address.port;
  });
  await Promise.all(servers.map(close));
  return ports;
}

export async function freePort(): Promise<number> {
  const [port] = await freePorts(1);
  if (port === undefined) throw new Error('no free port');
  return port;
}

/** True when nothing listens on the port at 127.0.0.1. */
export async function isPortFree(port: number): Promise<boolean> {
  try {
    await close(await listen(port));
    return true;
  } catch {
    return false;
  }
}
