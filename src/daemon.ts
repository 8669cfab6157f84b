import { randomBytes } from 'node:crypto';
import { statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from './clock.ts';
import { type Config, ownPlacesOf } from './config.ts';
import { OperationalError } from './core/errors.ts';
import type { Intake, Log } from './core/ports.ts';
import { parseRequest, type Request } from './core/request.ts';
import { openHost } from './drivers/host.ts';
import { type DriverOptions, openDriver } from './drivers/open.ts';
import { openSocket } from './intake/socket.ts';
import { openControl } from './intake/socket-control.ts';
import { openSpool } from './intake/spool.ts';
import { openJournal } from './journal.ts';
import { tendLedger } from './run/adopt.ts';
import { conduct } from './run/conduct.ts';
import { shutDown } from './run/control.ts';
import { recover } from './run/recover.ts';
import { makeShared, type Shared } from './run/shared.ts';
import { makeViews } from './run/views.ts';
import { watchEngine } from './run/watch.ts';

/** What the daemon is given by the process edge. */
export type DaemonEdge = {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Log;
  readonly version: string;
};

/** The one client that there is until the configuration can name several. */
const CLIENT = 'default';
const CONTROL_MODE = 0o600;
const SOCKET_MODE = 0o660;

/**
 * Takes requests until `signal` aborts; then nothing new, what is held is let go of in order, and all is closed in the
 * opposite order of its opening. Before the first request is taken, what a dead sidecar left is put right.
 * @throws OperationalError when it cannot begin; whatever else is thrown is a bug
 */
export async function runDaemon(config: Config, edge: DaemonEdge, signal: AbortSignal): Promise<void> {
  const { log, version } = edge;
  await using stack = new AsyncDisposableStack();
  const shared = await openShared(config, edge, stack);
  const views = makeViews(shared.parts, { version, since: systemClock.now() });
  const parse = makeParser(config);
  const clientScript = await readFile(new URL('./intake/client.sh', import.meta.url), 'utf8');
  const common = { client: CLIENT, leaseTtlMs: config.lease.ttlMs, parse, log, clock: systemClock, ...ownerOf(config) };

  const { dir, mode } = config.run;
  const spool = await openPatiently(() => openSpool({ ...common, runDir: dir, mode, clientScript }), {
    what: 'spool',
    shared: shared.parts,
    stack,
  });
  const socket = await openPatiently(
    () => openSocket({ ...common, path: join(dir, 'sidehook.sock'), mode: SOCKET_MODE, views }),
    { what: 'socket', shared: shared.parts, stack },
  );
  const control = { path: join(config.state.dir, 'control.sock'), mode: CONTROL_MODE };
  stack.use(await openControl({ ...control, parse, views, log }));

  const stopped = AbortSignal.any([signal, shared.bugs.signal]);
  const intakes: readonly Intake[] = [spool, socket];
  shared.parts.inBackground(watchEngine(shared.parts));
  shared.parts.inBackground(tendLedger(shared.parts));
  await untilAborted(recover(intakes, shared.parts), shared.parts, stopped);
  if (!stopped.aborted) {
    log.info('ready', { version, engine: shared.parts.tools.driver.engine, dir: config.run.dir });
    await Promise.all(intakes.map((intake) => takeAll(intake, shared.parts, stopped)));
  }

  if (shared.bugs.signal.aborted) throw shared.bugs.signal.reason;
  log.info('stopping', { why: signal.reason instanceof Error ? signal.reason.message : String(signal.reason) });
  await shutDown(shared.parts);
  log.info('stopped');
}

/** The parts that do the work, with no way in yet: for the daemon, and for a look at the journal while it is down. */
export async function openShared(
  config: Config,
  edge: DaemonEdge,
  stack: AsyncDisposableStack,
): Promise<{ readonly parts: Shared; readonly bugs: AbortController }> {
  const { env, log } = edge;
  const journal = stack.use(openJournal(config.state.dir));
  const host = openHost({ hooksDir: config.hooks.dir, env, sharedDir: config.run.dir, log });
  const driver = stack.use(await openDriver(driverOptionsOf(config, edge)));
  const bugs = new AbortController();
  const tools = { host, driver, journal, clock: systemClock, log, settings: settingsOf(config), makeRunId };
  const parts = makeShared(tools, (error) => bugs.abort(error));
  stack.defer(async () => {
    parts.stopping.abort(new Error('the sidecar has ended'));
    parts.ending.abort(new Error('the sidecar has ended'));
    await Promise.allSettled([...parts.background]);
  });
  return { parts, bugs };
}

/** What the driver has to know of the settings. */
export function driverOptionsOf(config: Config, { env, log }: Pick<DaemonEdge, 'env' | 'log'>): DriverOptions {
  const { engine, scope, run, state, compat, operations } = config;
  return {
    engine,
    scope,
    compat,
    operations,
    runDir: run.dir,
    stateDir: state.dir,
    own: ownPlacesOf(config),
    env,
    log,
  };
}

/** Waits for the work, and goes on with it in the background once told to end: recovery may wait for an engine. */
function untilAborted(work: Promise<void>, { inBackground }: Shared, signal: AbortSignal): Promise<void> {
  inBackground(work);
  const { promise: aborted, resolve } = Promise.withResolvers<void>();
  if (signal.aborted) resolve();
  signal.addEventListener('abort', () => resolve(), { once: true });
  return Promise.race([work, aborted]);
}

const REOPEN_MS = 5000;

/**
 * Opens a way in. One that cannot be opened is a reason not to begin; but never while something is held or a run is
 * open: a client could plant whatever is in the way, and keep what we stopped from being started. Then it is tried again.
 */
async function openPatiently(
  open: () => Promise<Intake & AsyncDisposable>,
  { what, shared, stack }: { what: string; shared: Shared; stack: AsyncDisposableStack },
): Promise<Intake> {
  const { journal, log, clock } = shared.tools;
  let intake: Intake | undefined;
  const attempt = async (): Promise<void> => {
    try {
      intake = stack.use(await open());
    } catch (error) {
      const isIdle = journal.runs('live').length === 0 && journal.holds().length === 0;
      if (isIdle || !(error instanceof OperationalError)) throw error;
      log.error(`${what} not opened, going on without it`, { why: error.message });
    }
  };
  await attempt();
  return {
    async *deliveries(signal) {
      while (intake === undefined && !signal.aborted) {
        await clock.sleep(REOPEN_MS, signal).catch(() => undefined);
        if (!signal.aborted) await attempt();
      }
      if (intake !== undefined) yield* intake.deliveries(signal);
    },
    reopen: (request, leaseRef) => intake?.reopen(request, leaseRef),
    lease: (ref) => intake?.lease(ref),
  };
}

/** Whoever is not named stays who we are. */
function ownerOf({ run: { uid, gid } }: Config): { readonly owner?: { readonly uid: number; readonly gid: number } } {
  if (uid === undefined && gid === undefined) return {};
  const own = statSync('/proc/self');
  return { owner: { uid: uid ?? own.uid, gid: gid ?? own.gid } };
}

async function takeAll(intake: Intake, shared: Shared, signal: AbortSignal): Promise<void> {
  for await (const delivery of intake.deliveries(signal)) shared.inBackground(conduct(delivery, shared));
}

/** Turns messages into requests of one client. */
function makeParser({ operations, lease, hold }: Config): (raw: unknown, client: string) => Request {
  const limits = { operations, unattendedMs: lease.unattendedMs, longestLeaseMs: hold.maxMs };
  return (raw, client) => parseRequest(raw, { ...limits, client });
}

/** The settings that a run obeys. */
export function settingsOf({ operations, hooks, hold, shutdown }: Config): Shared['tools']['settings'] {
  return {
    operations,
    hooksTimeoutMs: hooks.timeoutMs,
    holdMaxMs: hold.maxMs,
    healthTimeoutMs: hold.healthTimeoutMs,
    unclean: hold.unclean,
    failedRestore: hold.failedRestore,
    shutdownHolds: shutdown.holds,
  };
}

/** Sorts by time, and is random enough that nobody guesses another's: `20260131T235959Z-9f3c0a1be2d4`. */
function makeRunId(): string {
  const time = new Date().toISOString().replaceAll(/[-:]|\.\d+/g, '');
  return `${time}-${randomBytes(6).toString('hex')}`;
}
