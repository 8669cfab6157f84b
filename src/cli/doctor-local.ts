import { constants } from 'node:fs';
import { access, stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { Config } from '../config.ts';
import { OperationalError } from '../core/errors.ts';
import type { Finding } from '../core/finding.ts';
import { parseHookFile } from '../core/header.ts';
import type { HookFile, Host } from '../core/ports.ts';
import type { HookLimits } from '../core/settings.ts';
import { findBroken } from '../drivers/host-diagnosis.ts';

/** No sidehook is older; a clock that says so has never been set. */
const EARLIEST = '2025-01-01T00:00:00Z';
const LOOK_MS = 50;
const MOST_DRIFT_MS = 1000;

/** The clock on the wall is for records and people; the terms go by the one that nobody moves. */
export async function examineClock(signal: AbortSignal): Promise<readonly Finding[]> {
  const what = 'clock';
  const before = { wall: Date.now(), steady: performance.now() };
  await pause(LOOK_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
  const [wall, steady] = [Date.now() - before.wall, performance.now() - before.steady];
  const now = new Date().toISOString();
  if (before.wall < Date.parse(EARLIEST)) return [{ what, level: 'fail', says: `it says ${now}: set it` }];
  if (steady < LOOK_MS / 2)
    return [{ what, level: 'fail', says: 'the steady clock stands still: no term would ever end' }];
  const says = `it moved by ${wall}ms in ${Math.round(steady)}ms: somebody sets it by leaps: leave that to one time service`;
  if (Math.abs(wall - steady) > MOST_DRIFT_MS) return [{ what, level: 'warn', says }];
  return [{ what, level: 'ok', says: now }];
}

const MIB = 1024 * 1024;
const LEAST_MIB = 64;
/** What `statfs` calls them. */
const TMPFS = 0x01021994;
const OF_THE_NETWORK: ReadonlyMap<number, string> = new Map([
  [0x6969, 'NFS'],
  [0xff534d42, 'CIFS'],
  [0xfe534d42, 'SMB'],
]);

/** Whether we may write where we must, and whether what is written there lasts. */
export async function examineDirectories({ run, state }: Config): Promise<readonly Finding[]> {
  const findings = [await examineWritable('run.dir', run.dir), await examineWritable('state.dir', state.dir)];
  const isReady = findings[1]?.level === 'ok';
  return isReady ? [...findings, ...(await examineDisk(state.dir))] : findings;
}

async function examineWritable(what: string, path: string): Promise<Finding> {
  const uid = process.getuid?.() ?? 0;
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => error);
  if (!(found instanceof Error) && !found.isDirectory())
    return { what, level: 'fail', says: `${path} is no directory` };
  const isAbsent = found instanceof Error && found.code === 'ENOENT';
  const place = isAbsent ? await nearestOf(path) : path;
  const error = await access(place, constants.W_OK | constants.X_OK).catch((reason: NodeJS.ErrnoException) => reason);
  if (error === undefined)
    return { what, level: 'ok', says: isAbsent ? `${path} is not there yet: serve makes it` : `${path} is writable` };
  const why =
    { EROFS: 'its mount is read-only', EACCES: `not permitted for uid ${uid}` }[error.code ?? ''] ?? error.message;
  return {
    what,
    level: 'fail',
    says: `${path} cannot be written (${why}): mount a volume there that uid ${uid} may write`,
  };
}

/** What exists of the way to a path. */
async function nearestOf(path: string): Promise<string> {
  const parent = dirname(path);
  if (parent === path) return path;
  return access(parent).then(
    () => parent,
    () => nearestOf(parent),
  );
}

async function examineDisk(path: string): Promise<readonly Finding[]> {
  const what = 'state.dir disk';
  const disk = await statfs(path).catch(() => undefined); // not there yet
  if (disk === undefined) return [];
  const free = Math.floor((disk.bavail * disk.bsize) / MIB);
  const findings: Finding[] = [];
  if (disk.type === TMPFS)
    findings.push({
      what,
      level: 'fail',
      says: `${path} lies in memory: a restart forgets what is held: mount a volume there`,
    });
  const network = OF_THE_NETWORK.get(disk.type);
  if (network !== undefined)
    findings.push({
      what,
      level: 'warn',
      says: `${path} lies on ${network}, whose locks and syncs cannot be relied on: use a local disk`,
    });
  if (free < LEAST_MIB)
    findings.push({
      what,
      level: 'warn',
      says: `${free} MiB are left: a journal that cannot be written refuses each pre: make room`,
    });
  return findings.length === 0 ? [{ what, level: 'ok', says: `${free} MiB free` }] : findings;
}

/** Each file of hooks.d by itself, since the daemon stops at the first that is wrong. */
export async function examineHooks(
  host: Host,
  { hooks, operations }: Config,
  env: Readonly<Record<string, string | undefined>>,
): Promise<readonly Finding[]> {
  const what = 'hooks.d';
  const limits = { timeoutMs: hooks.timeoutMs, operations };
  try {
    const { files, passedOver } = await host.list();
    const broken = (await Promise.all(files.map((file) => examineHook(file, limits, env.PATH ?? '')))).flat();
    const names = files.map(({ name }) => name).join(', ');
    const says = `${hooks.dir}: ${names === '' ? 'no hooks' : names}`;
    const passed = passedOver.map((note): Finding => ({ what, level: 'warn', says: note }));
    return [...(broken.length === 0 ? [{ what, level: 'ok', says } as const] : broken), ...passed];
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    return [{ what, level: 'fail', says: error.message }];
  }
}

async function examineHook(file: HookFile, limits: HookLimits, searchPath: string): Promise<readonly Finding[]> {
  const what = 'hooks.d';
  try {
    const { target } = parseHookFile(file, limits);
    const why = target.kind === 'host' ? await findBroken(file.path, searchPath) : undefined;
    return why === undefined ? [] : [{ what, level: 'fail', says: `hook ${file.name}: could not be run: ${why}` }];
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    return [{ what, level: 'fail', says: error.message }];
  }
}
