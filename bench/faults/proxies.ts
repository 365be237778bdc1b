// The proxies of a world that has them, by which two processes each stands between.
import { Proxy } from './proxy.ts';

/** Which two processes a proxy stands between. */
export const LINKS = ['edge to NATS', 'aggregator to NATS', 'aggregator to ClickHouse'] as const;
export type Link = (typeof LINKS)[number];

export class Proxies {
  readonly #open = new Map<Link, Proxy>();

  async open(ports: Readonly<Record<Link, number>>, random: () => number): Promise<void> {
    for (const link of LINKS) this.#open.set(link, await Proxy.open(ports[link], random));
  }

  get(link: Link): Proxy | undefined {
    return this.#open.get(link);
  }

  /** The URL, by way of the proxy where there is one. */
  through(link: Link, url: string): string {
    const proxy = this.#open.get(link);
    if (proxy === undefined) return url;
    const by = new URL(url);
    by.port = String(proxy.port);
    return by.href.replace(/\/$/, '');
  }

  async close(): Promise<void> {
    await Promise.all([...this.#open.values()].map((proxy) => proxy.close()));
  }
}
