// What billing-sync may use of the ledger. Everything else of this folder is the ledger's own.
export { claimOutbox, completeOutbox, OUTBOX_CHANNEL, postponeOutbox, type OutboxEntry } from './outbox.ts';
export {
  readInvoice,
  recordInvoiceSent,
  recordPayment,
  type Invoice,
  type InvoiceLine,
  type Payment,
  type SentInvoice,
} from './invoices.ts';
