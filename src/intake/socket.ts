import { randomUUID } from 'node:crypto';
import type { Clock, Delivery, Intake, Log } from '../core/ports.ts';
import type { Request } from '../core/request.ts';
import type { Views } from '../core/views.ts';
import { makeDelivery, makeDeliveryToNobody, type SocketDelivery } from './socket-delivery.ts';
import { type Leases, openLeases } from './socket-leases.ts';
import type { Place } from './socket-listen.ts';
import { refusal } from './socket-problem.ts';
import { makeViewRoutes } from './socket-routes.ts';
import { type Exchange, openServer, type Route } from './socket-server.ts';
import { encodeEvent, PROTOCOL_VERSION } from './socket-wire.ts';

/** How often a lease that says nothing says that it is still there: what relays the socket may want a sign of life. */
const HEARTBEAT_MS = 30_000;

/** What a socket for clients needs. */
export type SocketOptions = Place & {
  /** Whose directory it lies in, which is who speaks through it. */
  readonly client: string;
  /** @throws OperationalError for what is no request, or not allowed to this client */
  readonly parse: (raw: unknown, client: string) => Request;
  readonly views: Views;
  readonly log: Log;
  readonly clock: Clock;
  /** How long a client may take to come back after our restart. */
  readonly leaseTtlMs: number;
  /** How long a request may take to arrive whole. */
  readonly requestTermMs?: number;
};

/**
 * Listens on the socket of one client's directory. Requests wait, unanswered, until someone asks for deliveries; those
 * still waiting at the end are broken off, and their clients ask the next sidecar.
 * @throws OperationalError `configuration`: the socket cannot be made
 */
export async function openSocket(options: SocketOptions): Promise<Intake & AsyncDisposable> {
  const { client, clock, log, views } = options;
  const prefix = `socket/${client}/`;
  const leases = openLeases({ ttlMs: options.leaseTtlMs, clock });
  const queue = openQueue();
  const routes: Route[] = [
    {
      method: 'POST',
      path: '/v1/signals',
      respond: async (exchange) => takeSignal(await exchange.body(), exchange, options, prefix, leases, queue),
    },
    {
      method: 'GET',
      path: '/v1/leases/{id}',
      respond: ({ path, response, signal }) =>
        keepLease(`${prefix}lease/${path.id}`, { response, signal }, leases, clock),
    },
    {
      method: 'GET',
      path: '/v1/runs/{id}/lease',
      async respond({ path, response, signal }) {
        const run = await views.run(path.id ?? '');
        if (run === undefined || run.client !== client) throw refusal(404, `run ${path.id}: no such run`);
        if (!run.leaseRef.startsWith(prefix))
          throw refusal(409, `run ${run.id}: its lease is held in another way than by this socket`);
        if (run.phase === 'closed') throw refusal(409, `run ${run.id}: closed already`);
        await keepLease(run.leaseRef, { response, signal }, leases, clock);
      },
    },
    ...makeViewRoutes({ views, client, parse: options.parse, who: 'client' }),
  ];
  const server = await openServer({
    ...options,
    title: 'Sidehook: the socket of a client',
    routes,
    log: log.child({ client }),
  });

  return {
    async *deliveries(signal) {
      for await (const delivery of queue.take(signal)) {
        if (delivery.isWithdrawn()) continue;
        delivery.accept();
        yield delivery;
      }
    },
    reopen(request, leaseRef): Delivery | undefined {
      return leaseRef.startsWith(prefix) ? makeDeliveryToNobody(request, leases.lease(leaseRef)) : undefined;
    },
    lease: (ref) => (ref.startsWith(prefix) ? leases.lease(ref) : undefined),
    async [Symbol.asyncDispose]() {
      leases[Symbol.dispose](); // first: that we hang up says nothing about our clients
      await server[Symbol.asyncDispose]();
    },
  };
}

/**
 * Hands one signal on. Its connection is the proof that its sender lives, and so is the lease that it names with
 * `leaseId`; a client that opened that one before has no moment at which it could be taken for dead.
 */
function takeSignal(
  raw: unknown,
  { response }: Exchange,
  { parse, client, clock }: SocketOptions,
  prefix: string,
  leases: Leases,
  queue: Queue,
): void {
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) throw refusal(422, 'body: expected an object');
  const { leaseId, ...fields } = raw as Record<string, unknown>;
  if (leaseId !== undefined && !(typeof leaseId === 'string' && /^[a-zA-Z0-9][\w.-]{0,79}$/.test(leaseId))) {
    throw refusal(422, 'leaseId: expected 1 to 80 letters, digits, . _ or -');
  }
  const request = parse({ version: PROTOCOL_VERSION, id: randomUUID(), ...fields }, client);
  const ref = prefix + (leaseId === undefined ? `request/${request.id}` : `lease/${leaseId}`);

  if (response.destroyed) return;
  const delivery = makeDelivery(request, leases.lease(ref), response, clock);
  const attachment = leases.attach(ref);
  const withdraw = queue.add(delivery);
  response.once('close', () => {
    withdraw();
    attachment.detach(delivery.isAnswered() ? 'done' : 'broken');
  });
}

async function keepLease(
  ref: string,
  { response, signal }: Pick<Exchange, 'response' | 'signal'>,
  leases: Leases,
  clock: Clock,
): Promise<void> {
  if (response.destroyed) return;
  response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
  const attachment = leases.keep(ref, (why) => response.write(encodeEvent({ type: 'abandoned', why })));
  response.once('close', () => attachment.detach('broken'));
  response.write(encodeEvent({ type: 'leased' }));
  while (!signal.aborted) {
    await clock.sleep(HEARTBEAT_MS, signal).catch((error: unknown) => {
      if (!signal.aborted) throw error;
    });
    if (!signal.aborted && !response.writableNeedDrain) response.write('\n');
  }
}

type Queue = {
  /** Puts a delivery in line; call the result to take it out. */
  add(delivery: SocketDelivery): () => void;
  take(signal: AbortSignal): AsyncGenerator<SocketDelivery>;
};

/** Bounded by the number of connections: each that waits in it has one open. */
function openQueue(): Queue {
  const waiting = new Set<SocketDelivery>();
  let wake = (): void => undefined;
  return {
    add(delivery) {
      waiting.add(delivery);
      wake();
      return () => waiting.delete(delivery);
    },
    async *take(signal) {
      const onAbort = (): void => wake();
      signal.addEventListener('abort', onAbort, { once: true });
      try {
        while (!signal.aborted) {
          for (const delivery of waiting) {
            if (signal.aborted) return;
            waiting.delete(delivery);
            yield delivery;
          }
          if (waiting.size > 0) continue;
          await new Promise<void>((resolve) => {
            wake = resolve;
            if (signal.aborted) resolve();
          });
        }
      } finally {
        signal.removeEventListener('abort', onAbort);
      }
    },
  };
}
