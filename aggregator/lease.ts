/**
 * Who should count which shard, from what the bucket of leases says: a pure function of entries and of when they were
 * seen. ownership.ts tells the protocol and acts on it; every process works out the same plan from the same entries.
 */

/** A process among the others. Written anew with each heartbeat, so that it never stays the same. */
export interface MemberRecord {
  readonly name: string;
  /** Of a name, the process that runs now. */
  readonly instance: string;
  /** Counts the processes of a name: the highest one has it. */
  readonly generation: number;
  /** Counts heartbeats. */
  readonly beat: number;
  /** The shards that it may take. */
  readonly shards: readonly number[] | 'all';
  /** It is stopping, and takes nothing more. */
  readonly leaving: boolean;
}

export interface LeaseRecord {
  /** The member's name; '' for a shard that was given up. */
  readonly owner: string;
  readonly instance: string;
  readonly epoch: number;
  /** Who was chosen to take what was given up; '' for anybody. */
  readonly successor: string;
}

export interface Plan {
  /** Shards to take now. */
  readonly take: readonly number[];
  /** Shards to hand over, and to whom. */
  readonly handOver: readonly { readonly shard: number; readonly to: string }[];
}

export const memberKey = (name: string): string => `member-${name}`;
export const leaseKey = (shard: number): string => `shard-${shard}`;

export function parseMember(value: string): MemberRecord | null {
  const record = parse(value);
  const { name, instance, generation, beat, shards, leaving } = record;
  const known =
    typeof name === 'string' &&
    typeof instance === 'string' &&
    isCount(generation) &&
    isCount(beat) &&
    typeof leaving === 'boolean' &&
    (shards === 'all' || (Array.isArray(shards) && shards.every(isCount)));
  return known ? { name, instance, generation, beat, shards, leaving } : null;
}

function parseLease(value: string): LeaseRecord | null {
  const { owner, instance, epoch, successor } = parse(value);
  const known =
    typeof owner === 'string' &&
    typeof instance === 'string' &&
    isCount(epoch) &&
    typeof successor === 'string';
  return known ? { owner, instance, epoch, successor } : null;
}

function parse(value: string): Record<string, unknown> {
  try {
    const record: unknown = JSON.parse(value);
    return typeof record === 'object' && record !== null ? (record as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

interface Seen<T> {
  readonly value: string;
  /** Null for what cannot be read. */
  readonly record: T | null;
  /** For compare and set. */
  revision: number;
  /** When the entry became what it is, or when looking began; by the clock of who looks. */
  sinceMs: number;
}

export class LeaseTable {
  readonly #self: string;
  readonly #shards: number;
  readonly #ttlMs: number;
  readonly #members = new Map<string, Seen<MemberRecord>>();
  readonly #leases = new Map<number, Seen<LeaseRecord>>();

  /** @param ttlMs a member whose entry stays the same for so long counts as dead. */
  constructor(self: string, shards: number, ttlMs: number) {
    this.#self = self;
    this.#shards = shards;
    this.#ttlMs = ttlMs;
  }

  /**
   * An entry as the bucket has it; null when it is not there. One that is told again, or was overtaken by one that we
   * wrote ourselves, is no news.
   */
  set(key: string, value: string | null, revision: number, nowMs: number): void {
    const lease = /^shard-(\d{1,4})$/.exec(key);
    if (lease !== null) setSeen(this.#leases, Number(lease[1]), value, parseLease, revision, nowMs);
    else if (key.startsWith('member-'))
      setSeen(this.#members, key.slice('member-'.length), value, parseMember, revision, nowMs);
  }

  /** Of a shard's entry; null when there is none. */
  revision(shard: number): number | null {
    return this.#leases.get(shard)?.revision ?? null;
  }

  lease(shard: number): LeaseRecord | null {
    return this.#leases.get(shard)?.record ?? null;
  }

  member(name: string): MemberRecord | null {
    return this.#members.get(name)?.record ?? null;
  }

  /** Who looked away has seen nothing in between: everybody gets the whole time again. */
  lookAnew(nowMs: number): void {
    for (const seen of this.#members.values()) seen.sinceMs = nowMs;
    for (const seen of this.#leases.values()) seen.sinceMs = nowMs;
  }

  /** The bucket may be an earlier state of itself: what it tells is true, whatever its revision. */
  bucketMayBeAnother(): void {
    for (const seen of [...this.#members.values(), ...this.#leases.values()]) seen.revision = 0;
  }

  isAlive(name: string, nowMs: number): boolean {
    if (name === this.#self) return true;
    const seen = this.#members.get(name);
    return seen !== undefined && nowMs - seen.sinceMs < this.#ttlMs;
  }

  /** Names of those who can count, in order. */
  alive(nowMs: number): string[] {
    return [...this.#members.keys()].filter((name) => this.isAlive(name, nowMs)).sort();
  }

  /** Members silent for so long that nobody will miss their entry. */
  forgotten(nowMs: number): string[] {
    return [...this.#members]
      .filter(([name, { sinceMs }]) => name !== this.#self && nowMs - sinceMs > this.#ttlMs * 20)
      .map(([name]) => name);
  }

  /** When the next member could be found dead, if it stays silent; Infinity for never. */
  nextDeathMs(nowMs: number): number {
    let next = Infinity;
    for (const [name, { sinceMs }] of this.#members) {
      if (this.isAlive(name, nowMs) && name !== this.#self) next = Math.min(next, sinceMs + this.#ttlMs);
    }
    for (const { record, sinceMs } of this.#leases.values()) {
      if (record?.owner === '' && record.successor !== '' && sinceMs + this.#ttlMs > nowMs)
        next = Math.min(next, sinceMs + this.#ttlMs);
    }
    return next;
  }

  /**
   * What this member should do. A free shard goes to the one chosen for it, or to the least loaded of those that may
   * take it. While no shard is free, the most loaded one hands over to the least loaded that may take it, as long as
   * that makes them more even: with nothing forbidden everybody ends with ceil(shards / members) at most.
   *
   * @param instance of this process: what another instance of the same name held is free.
   * @param busy shards of ours that are being handed over.
   */
  plan(instance: string, busy: ReadonlySet<number>, nowMs: number): Plan {
    const members = this.alive(nowMs)
      .flatMap((name) => this.member(name) ?? [])
      .filter(({ leaving }) => !leaving)
      .map(({ name, shards }) => ({ name, may: shards === 'all' ? null : new Set(shards), load: 0 }));
    const byName = new Map(members.map((member) => [member.name, member]));
    const holders = new Map<number, string>();
    const free: number[] = [];
    for (let shard = 0; shard < this.#shards; shard++) {
      const lease = this.lease(shard);
      const holder = lease === null || lease.owner === '' ? null : this.#holder(lease, instance, nowMs);
      if (holder === null) {
        free.push(shard);
        continue;
      }
      holders.set(shard, holder);
      const member = byName.get(holder);
      if (member !== undefined) member.load += 1;
    }

    const take: number[] = [];
    for (const shard of free) {
      const able = members.filter(({ may }) => may === null || may.has(shard));
      const chosen = able.find(({ name }) => name === this.#successor(shard, nowMs)) ?? leastLoaded(able);
      if (chosen === undefined) continue;
      chosen.load += 1;
      if (chosen.name === this.#self) take.push(shard);
    }
    if (free.length > 0) return { take, handOver: [] };

    const handOver: { shard: number; to: string }[] = [];
    for (let moves = 0; moves < this.#shards; moves++) {
      const move = evenOut(members, holders);
      if (move === null) break;
      holders.set(move.shard, move.to.name);
      move.from.load -= 1;
      move.to.load += 1;
      if (move.from.name === this.#self && !busy.has(move.shard))
        handOver.push({ shard: move.shard, to: move.to.name });
    }
    return { take, handOver };
  }

  /**
   * Who holds the lease, if he lives. What an earlier process of the same name held is free at once: the name is one
   * of a kind, so the earlier one is gone.
   */
  #holder({ owner, instance: holding }: LeaseRecord, instance: string, nowMs: number): string | null {
    if (!this.isAlive(owner, nowMs)) return null;
    const running = owner === this.#self ? instance : this.member(owner)?.instance;
    return running === holding ? owner : null;
  }

  /** Who was chosen for a shard that was given up, unless that is long ago and nothing has happened. */
  #successor(shard: number, nowMs: number): string {
    const seen = this.#leases.get(shard);
    if (seen?.record?.owner !== '') return '';
    return nowMs - seen.sinceMs < this.#ttlMs ? seen.record.successor : '';
  }
}

interface Load {
  readonly name: string;
  /** Null for all. */
  readonly may: ReadonlySet<number> | null;
  load: number;
}

function leastLoaded(members: readonly Load[]): Load | undefined {
  return members.reduce<Load | undefined>(
    (least, member) => (least === undefined || member.load < least.load ? member : least),
    undefined,
  );
}

/** The move that helps most; null when none does. */
function evenOut(
  members: readonly Load[],
  holders: ReadonlyMap<number, string>,
): { readonly shard: number; readonly from: Load; readonly to: Load } | null {
  const fullestFirst = [...members].sort((a, b) => b.load - a.load);
  const emptiestFirst = [...fullestFirst].reverse();
  for (const from of fullestFirst) {
    for (const to of emptiestFirst) {
      if (to.load + 1 >= from.load) break;
      for (const [shard, holder] of holders) {
        if (holder === from.name && (to.may === null || to.may.has(shard))) return { shard, from, to };
      }
    }
  }
  return null;
}

function setSeen<K, T>(
  entries: Map<K, Seen<T>>,
  key: K,
  value: string | null,
  parseRecord: (value: string) => T | null,
  revision: number,
  nowMs: number,
): void {
  const known = entries.get(key);
  if (value === null) {
    entries.delete(key);
  } else if (known === undefined || (revision > known.revision && known.value !== value)) {
    entries.set(key, { value, record: parseRecord(value), revision, sinceMs: nowMs });
  } else {
    known.revision = Math.max(known.revision, revision);
  }
}
