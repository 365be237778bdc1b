/** A body whose turn has not come; see turns.ts. */
export interface WaitingBody {
  readonly bytes: number;
  read(): void;
}

/** What the edge knows of a tenant while it runs: his share of the room, and his bodies that wait for their turn. */
export class Account {
  readonly tenant: string;
  readonly tenantBytes: Uint8Array;
  /** Requests and batches let in and not yet answered, and the bytes reserved for them. */
  requests = 0;
  bytes = 0;
  /** Body bytes read for him in this turn of the event loop. */
  turnBytes = 0;
  /** Read in order. */
  readonly waiting: WaitingBody[] = [];

  constructor(tenant: string) {
    this.tenant = tenant;
    this.tenantBytes = new TextEncoder().encode(tenant);
  }
}

/** The accounts by tenant: as many as there are tenants with a key that was used here. */
export class Accounts {
  readonly #accounts = new Map<string, Account>();

  of(tenant: string): Account {
    let account = this.#accounts.get(tenant);
    if (account === undefined) this.#accounts.set(tenant, (account = new Account(tenant)));
    return account;
  }
}
