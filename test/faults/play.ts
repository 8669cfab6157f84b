/** One whole backup or restore, from the workloads' point of view, with whatever happens to the daemon meanwhile. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { until } from '../support/until.ts';
import { type ClientProcess, type Daemon, openDaemon, startBackupClient } from './daemon.ts';
import type { Event, Life } from './engine-view.ts';
import { isAsMeant, type Shop } from './shop.ts';

export type Script = {
  readonly operation: 'backup' | 'restore';
  /** Exit code of the client's command. */
  readonly commandCode?: number;
  /** Where the daemon's lives end. */
  readonly kills?: readonly (string | undefined)[];
  readonly env?: Readonly<Record<string, string>>;
  /** What is done to the world while it goes on. */
  readonly meanwhile?: (scene: Scene) => Promise<void>;
};

/** What can be laid hands on. */
export type Scene = {
  readonly shop: Shop;
  readonly daemon: Daemon;
  readonly client: ClientProcess;
  /** What became of the containers since the beginning. */
  readonly events: () => readonly Event[];
};

/** All that is known of it afterwards. */
export type Played = {
  readonly operation: 'backup' | 'restore';
  readonly commandCode: number;
  readonly before: Readonly<Record<string, Life | undefined>>;
  readonly after: Readonly<Record<string, Life | undefined>>;
  readonly events: readonly Event[];
  readonly calls: readonly string[];
  /** When the client's command began and ended, each time that it ran; in nanoseconds. */
  readonly commands: readonly { readonly beganAt: bigint; readonly endedAt: bigint | undefined }[];
  /** undefined: it never ended. */
  readonly exitCode: number | undefined;
  /** 5.3: a restore whose command ran, and did not succeed. */
  readonly isKept: boolean;
  readonly clientSaid: string;
  readonly lives: readonly {
    readonly kill: string | undefined;
    readonly points: readonly string[];
    readonly endedBy: string | undefined;
  }[];
  readonly status: Status | undefined;
  readonly log: string;
  /** What was waited for in vain. */
  readonly missed: readonly string[];
};

export type Status = {
  readonly runs: readonly { readonly phase: string; readonly outcome?: string }[];
  readonly holds: readonly { readonly workload: string; readonly status: string }[];
};

/** How long the world gets to come back. Nothing takes a tenth of it, but a machine may be loaded. */
const SETTLE_MS = 180_000;
const CLIENT_MS = 300_000;

/** Plays it, and waits until all is over; judges nothing. */
export async function play(shop: Shop, script: Script): Promise<Played> {
  const { operation, commandCode = 0, kills = [] } = script;
  const { engine, project, names, hooksDir } = shop;
  await shop.forgetCalls();
  const before = await shop.lives();
  if (!isAsMeant(shop.services, before)) throw new Error(`not as it should be before: ${JSON.stringify(before)}`);
  const beganAt = BigInt(Date.now()) * 1_000_000n;
  const dir = await shop.makeDir();
  const marks = join(dir, 'command');
  await writeFile(marks, '');
  const engineHost = `unix://${engine.socketPath}`;
  const env = { ...script.env };
  await using daemon = await openDaemon({ dir, hooksDir, scope: project, engineHost, kills, names, env });
  const moment = `$(date +%s%N)`;
  const command = `echo "${moment}" >>'${marks}'; sleep 0.2; echo "${moment}" >>'${marks}'; exit ${commandCode}`;
  const args = ['run', operation, '--connect-timeout', '10m', '--', 'sh', '-c', command];
  using client = await startBackupClient(daemon.runDir, args);

  const missed: string[] = [];
  const wait = async (what: string, deadlineMs: number, condition: () => Promise<boolean> | boolean): Promise<void> => {
    await until(condition, { what, deadlineMs, everyMs: 50 }).catch((error: Error) => void missed.push(error.message));
  };
  const events = () => shop.eventsSince(beganAt);
  await script.meanwhile?.({ shop, daemon, client, events });
  await wait('the client to end', CLIENT_MS, () => client.exitCode() !== undefined);
  const commands = await commandsOf(marks);
  const isKept = operation === 'restore' && commandCode !== 0 && commands.length > 0;
  await wait('the run to be over', SETTLE_MS, async () => isOver(await runsOf(daemon), isKept));
  if (!isKept) await wait('all that ran to run', SETTLE_MS, async () => isAsMeant(shop.services, await shop.lives()));
  await wait('the engine to have told it all', SETTLE_MS, async () => isTold(await shop.lives(), before, events()));
  const after = await shop.lives();
  const lives = await Promise.all(
    daemon.lives().map(async (life) => ({
      kill: life.kill,
      points: await life.points(),
      endedBy: life.end()?.signal ?? life.end()?.code?.toString(),
    })),
  );
  const status = await daemon.ask<Status>('/v1/status'); // asks the engine itself, and so comes after the points
  if (isKept) {
    await daemon.ask('/v1/release', { all: true });
    await wait('what a failed restore kept to run', SETTLE_MS, async () =>
      isAsMeant(shop.services, await shop.lives()),
    );
  }
  await daemon.stop();
  return {
    ...{ operation, commandCode, before, after, lives, status, missed, isKept },
    commands: await commandsOf(marks),
    events: events(),
    calls: await shop.calls(),
    exitCode: client.exitCode(),
    clientSaid: client.err(),
    log: await daemon.log(),
  };
}

/** Moments in pairs, one a line. */
async function commandsOf(marks: string): Promise<Played['commands']> {
  const numbers = (await readFile(marks, 'utf8')).split('\n').slice(0, -1).map(BigInt);
  return Array.from({ length: Math.ceil(numbers.length / 2) }, (_, index) => ({
    beganAt: numbers[index * 2] ?? 0n,
    endedAt: numbers[index * 2 + 1],
  }));
}

type Phases = { readonly runs: readonly { readonly phase: string }[] };

/** From the journal alone: this costs the daemon no call of the engine, and so no point. */
const runsOf = (daemon: Daemon): Promise<Phases | undefined> => daemon.ask<Phases>('/v1/runs');

function isOver(known: Phases | undefined, isKept: boolean): boolean {
  return known?.runs.every(({ phase }) => phase === 'closed' || (isKept && phase === 'kept')) === true;
}

/** Whether the last event of each that was started anew is its start: events may come after the fact. */
function isTold(
  lives: Readonly<Record<string, Life | undefined>>,
  before: Readonly<Record<string, Life | undefined>>,
  events: readonly Event[],
): boolean {
  return Object.entries(lives).every(([name, life]) => {
    const last = events.findLast((event) => event.name === name && ['start', 'die'].includes(event.what))?.what;
    const isNew = life?.startedAt !== before[name]?.startedAt;
    return life?.isRunning ? last === (isNew ? 'start' : undefined) : true;
  });
}
