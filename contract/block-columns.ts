import { SLACK_BYTES } from './byte-words.ts';
import { grown } from './grown.ts';

const EVENTS_FIRST = 64;
const CELLS_FIRST = 256;
const IDS_FIRST = 2_048;

/** The columns of a block that is being built, with more room than they use. */
export class BlockColumns {
  /** Events for which there is room. */
  capacity = EVENTS_FIRST;
  identity = new Uint32Array(EVENTS_FIRST * 4);
  time = new Float64Array(EVENTS_FIRST);
  flags = new Uint8Array(EVENTS_FIRST);
  tenant = new Uint32Array(EVENTS_FIRST);
  source = new Uint32Array(EVENTS_FIRST);
  type = new Uint32Array(EVENTS_FIRST);
  subject = new Uint32Array(EVENTS_FIRST);
  shape = new Uint32Array(EVENTS_FIRST);
  cellStart = new Uint32Array(EVENTS_FIRST + 1);
  idStart = new Uint32Array(EVENTS_FIRST + 1);
  cells = new Float64Array(CELLS_FIRST);
  ids = new Uint8Array(IDS_FIRST);
  idsView = new DataView(this.ids.buffer);

  growEvents(): void {
    const capacity = (this.capacity *= 2);
    this.identity = grown(this.identity, new Uint32Array(capacity * 4));
    this.time = grown(this.time, new Float64Array(capacity));
    this.flags = grown(this.flags, new Uint8Array(capacity));
    this.tenant = grown(this.tenant, new Uint32Array(capacity));
    this.source = grown(this.source, new Uint32Array(capacity));
    this.type = grown(this.type, new Uint32Array(capacity));
    this.subject = grown(this.subject, new Uint32Array(capacity));
    this.shape = grown(this.shape, new Uint32Array(capacity));
    this.cellStart = grown(this.cellStart, new Uint32Array(capacity + 1));
    this.idStart = grown(this.idStart, new Uint32Array(capacity + 1));
  }

  growCells(least: number): void {
    this.cells = grown(this.cells, new Float64Array(least * 2));
  }

  growIds(least: number): void {
    this.ids = grown(this.ids, new Uint8Array((least + SLACK_BYTES) * 2));
    this.idsView = new DataView(this.ids.buffer);
  }
}
