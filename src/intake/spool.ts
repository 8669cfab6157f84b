import { lstat, rename } from 'node:fs/promises';
import { exitCodeOfError, OperationalError } from '../core/errors.ts';
import type { Clock, Delivery, Intake, Lease, Log } from '../core/ports.ts';
import type { Request } from '../core/request.ts';
import { openArrivals } from './spool-arrivals.ts';
import { ringForAnswers } from './spool-bell.ts';
import { makeReply, type Reply, type ReplyParts, tellGone } from './spool-delivery.ts';
import { isCode, listNames, messageOf, type Owner, readBounded, remove, UnfitError, unless } from './spool-folder.ts';
import { leaseLost, lookAtLease } from './spool-lease.ts';
import { openSweeper } from './spool-sweep.ts';
import { openTree } from './spool-tree.ts';
import { LARGEST_REQUEST, parseName, parseRequestText, senderOf } from './spool-wire.ts';

/** How many requests may be open at once; more stay in the directory until there is room. */
const MOST_OPEN = 256;

/** How many different troubles are told, so that a hostile client does not fill the log. */
const MOST_TROUBLES = 1000;

/** What a spool needs. */
export type SpoolOptions = {
  readonly runDir: string;
  /** Whose directory it is, which is who speaks through it. */
  readonly client: string;
  /** Of `runDir`; decides who may use the spool. */
  readonly mode?: number;
  readonly owner?: Owner;
  /** How long a client that can only count may stand still. */
  readonly leaseTtlMs?: number;
  /** @throws OperationalError for what is no request, or not allowed to this client */
  readonly parse: (raw: unknown, client: string) => Request;
  /** The text of the client, for `RUN_DIR/sidehook`. */
  readonly clientScript: string;
  readonly log: Log;
  readonly clock: Clock;
};

/**
 * Opens the shared-volume transport in one client's directory, and publishes the client there. Requests wait in the
 * directory until someone asks for deliveries; those that are open at the end are found by the next sidecar.
 * Everything in there is the client's to write, at any time: nothing is done by a path that it could swap.
 */
export async function openSpool(options: SpoolOptions): Promise<Intake & AsyncDisposable> {
  const { client, clock, parse, runDir, clientScript, owner, mode = 0o770, leaseTtlMs = 60_000 } = options;
  const log = options.log.child({ client });
  await using stack = new AsyncDisposableStack();
  const tree = stack.use(await openTree({ runDir, mode, clientScript, log, ...(owner && { owner }) }));
  const { inbox, outbox } = tree;
  const open = new Map<string, Reply>();
  const troubles = new Set<string>();
  const prefix = `spool/${client}/`;
  /** One stayed in the directory: for want of room, or because it came again while it was being answered. */
  let isLeft = false;

  const isOpen = (sender: string) => [...open.keys()].some((id) => senderOf(id) === sender);
  const sweeper = openSweeper({ inbox, outbox, isOpen, clock, log });
  const arrivals = openArrivals({
    path: () => inbox().self,
    list: () => listNames(inbox()),
    isRequest: (name) => parseName(name) !== undefined,
    tend: () => tree.repair(),
    isRemote: tree.isRemote,
    log,
  });
  const parts: ReplyParts = { inbox, outbox, access: tree.fileAccess, claim: sweeper.claim, log };
  stack.defer(async () => {
    await Promise.all([...open.values()].map((reply) => reply.close()));
  });

  function makeLease(sender: string): Lease {
    return {
      ref: `${prefix}${sender}`,
      lost: (signal) => leaseLost(sender, { folder: inbox, ttlMs: leaseTtlMs, clock, log }, signal),
      isHeld: async () => (await lookAtLease(sender, inbox())) === 'alive',
      abandon: (why) => void tellGone(sender, why, parts),
    };
  }

  function openReply(id: string): Reply {
    const reply = makeReply(id, senderOf(id), parts, () => {
      open.delete(id);
      void sweeper.answered(id);
      if (isLeft) arrivals.scanSoon();
      isLeft = false;
    });
    open.set(id, reply);
    return reply;
  }

  function makeDelivery(request: Request): Delivery {
    const { output, answer } = openReply(request.id);
    return { request, sender: makeLease(senderOf(request.id)), output, answer };
  }

  function tellOnce(message: string, fields: Record<string, unknown>): void {
    const trouble = JSON.stringify([message, fields]);
    if (troubles.has(trouble) || troubles.size >= MOST_TROUBLES) return;
    troubles.add(trouble);
    log.warn(message, fields);
  }

  /** Takes a request, by the rename by which its client would withdraw it. Undefined: it is not to be had, or bad. */
  async function take(name: string): Promise<Delivery | undefined> {
    const known = parseName(name);
    if (known === undefined) return undefined;
    const { id, stage } = known;
    if (open.has(id) || open.size >= MOST_OPEN) {
      // Most often this is only the news that it was taken. Otherwise there will be room when one is answered.
      isLeft ||= stage === 'req' && (await lstat(inbox().path(name)).catch(() => undefined)) !== undefined;
      return undefined;
    }
    try {
      if (stage === 'req') await rename(inbox().path(name), inbox().path(`${id}.got`));
      else if (await wasAnswered(id)) return undefined;
      const bytes = await readBounded(inbox(), `${id}.got`, LARGEST_REQUEST);
      return makeDelivery(parse(parseRequestText(bytes, id), client));
    } catch (error) {
      if (isCode(error, 'ENOENT')) return undefined; // withdrawn
      if (error instanceof OperationalError) await refuse(id, error);
      else if (error instanceof UnfitError)
        await refuse(id, new OperationalError('invalid-request', `request: ${error.message}`));
      else if (error instanceof Error && 'syscall' in error)
        tellOnce('cannot be read', { file: name, why: messageOf(error) });
      else throw error;
      return undefined;
    }
  }

  /** What a dead sidecar had taken may have its answer already. */
  async function wasAnswered(id: string): Promise<boolean> {
    try {
      await readBounded(outbox(), `${id}.ans`, LARGEST_REQUEST);
    } catch (error) {
      if (isCode(error, 'ENOENT') || error instanceof UnfitError) return false;
      throw error;
    }
    await remove(inbox(), `${id}.got`).catch(unless('ENOENT'));
    return true;
  }

  async function refuse(id: string, error: OperationalError): Promise<void> {
    tellOnce('request refused', { request: id, why: error.message });
    await openReply(id).answer({ exitCode: exitCodeOfError(error), message: error.message, notes: [] });
  }

  const whole = stack.move();
  return {
    async *deliveries(signal) {
      const sweeping = sweeper.run(signal);
      const ringing = ringForAnswers(outbox, inbox, signal).catch((error) => {
        log.warn('the clients that wait cannot be woken', { why: messageOf(error) });
      });
      for await (const name of arrivals.names(signal)) {
        const delivery = await take(name);
        if (delivery !== undefined) yield delivery;
      }
      await Promise.all([sweeping, ringing]);
    },
    reopen(request, leaseRef) {
      if (!leaseRef.startsWith(prefix) || parseName(`${request.id}.got`) === undefined) return undefined;
      return makeDelivery(request);
    },
    lease: (ref) => (ref.startsWith(prefix) ? makeLease(ref.slice(prefix.length)) : undefined),
    [Symbol.asyncDispose]: () => whole.disposeAsync(),
  };
}
