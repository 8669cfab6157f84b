import { existsSync } from 'node:fs';
import { join } from 'node:path';
import metadata from '../../package.json' with { type: 'json' };
import type { LoadedConfig } from '../config.ts';
import { OperationalError } from '../core/errors.ts';
import type { Finding } from '../core/finding.ts';
import type { HoldRecord } from '../core/record.ts';
import type { StatusView } from '../core/views.ts';
import { openJournal } from '../journal.ts';
import { controlSocketOf } from './operator.ts';
import { isUp, makeRemoteViews } from './remote-views.ts';

const what = 'daemon';

/** The daemon, or with the daemon down its journal, and what they hold. A journal that is in use is left alone. */
export async function examineDaemon(
  loaded: LoadedConfig,
  signal: AbortSignal,
): Promise<{ readonly findings: readonly Finding[]; readonly held: ReadonlySet<string> }> {
  const socketPath = controlSocketOf(loaded);
  try {
    if (!(await isUp(socketPath, signal))) return examineJournal(loaded, socketPath);
    const status = await makeRemoteViews(socketPath).status(signal);
    return { findings: findingsOf(status), held: new Set(status.holds.map(({ workload }) => workload)) };
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    return { findings: [{ what, level: 'fail', says: error.message }], held: new Set() };
  }
}

function findingsOf({ version, since, engine, runs, holds }: StatusView): readonly Finding[] {
  const findings: Finding[] = [];
  if (version !== metadata.version)
    findings.push({
      what,
      level: 'warn',
      says: `it is version ${version}, and this is ${metadata.version}: restart it`,
    });
  if (!engine.reachable) findings.push({ what, level: 'warn', says: `it does not reach its engine: ${engine.why}` });
  for (const { id, job } of runs.filter(({ phase }) => phase === 'kept')) {
    const advice = `restore again, or sidehook release --run ${id}`;
    findings.push({
      what,
      level: 'warn',
      says: `a restore of job ${job} failed, and what it held stays held: ${advice}`,
    });
  }
  for (const { workload, why } of holds.filter((hold) => hold.why !== undefined))
    findings.push({ what, level: 'fail', says: `${workload} is not released yet: ${why}` });
  return [{ what, level: 'ok', says: `up since ${since}` }, ...findings];
}

function examineJournal({ config }: LoadedConfig, socketPath: string): Awaited<ReturnType<typeof examineDaemon>> {
  const isDown: Finding = {
    what,
    level: 'warn',
    says: 'it is down, and nobody takes signals: start it (sidehook serve)',
  };
  // To make one would be to make it ours, perhaps another user's than the daemon is.
  if (!existsSync(join(config.state.dir, 'journal.db'))) return { findings: [isDown], held: new Set() };
  try {
    using journal = openJournal(config.state.dir);
    const holds = journal.holds();
    return { findings: [isDown, ...holds.map(sayForgotten)], held: new Set(holds.map(({ name }) => name)) };
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    const says = `${error.message}, and does not answer at ${socketPath}: if that stays so, restart it`;
    return { findings: [{ what, level: 'warn', says }], held: new Set() };
  }
}

function sayForgotten({ name, heldAt }: HoldRecord): Finding {
  const advice = 'start the daemon, or sidehook release --all';
  return { what, level: 'fail', says: `${name} is held since ${heldAt}, and nobody is there to release it: ${advice}` };
}
