/** One whole backup or restore, from the workloads' point of view, with whatever happens to the daemon meanwhile. */
import { mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { until } from '../support/until.ts';
import { watchAnswers } from './answers.ts';
import { type ClientKind, type ClientProcess, published, startClient } from './client.ts';
import { type Daemon, openDaemon } from './daemon.ts';
import type { Event, Life } from './engine-view.ts';
import { isAsMeant, type Shop } from './shop.ts';

export type Script = {
  readonly operation: 'backup' | 'restore';
  /** Exit code of the client's command. */
  readonly commandCode?: number;
  /** The last hook of `pre` exits 3. */
  readonly isHookFailing?: true;
  /** Where the daemon's lives end. */
  readonly kills?: readonly (string | undefined)[];
  /** More for the daemon, by the run's folder. */
  readonly env?: (dir: string) => Readonly<Record<string, string>>;
  /** What is done to the world while it goes on. */
  readonly meanwhile?: (scene: Scene) => Promise<void>;
  /** Default: the sh client, as a process of this machine. */
  readonly client?: ClientKind;
  /** How long the client waits for a sidecar; default: 2m. */
  readonly patience?: string;
  /** What is done to the daemon before the client is started. */
  readonly prelude?: (daemon: Daemon) => void;
  /** The command lasts until `go` of the scene is called, a minute and a half at most. */
  readonly waits?: true;
  /** For the daemon alone. */
  readonly engineHost?: string;
  readonly preload?: readonly string[];
  /** Called with the run's folder before anything is started in it. */
  readonly prepare?: (dir: string) => Promise<AsyncDisposable | undefined>;
  /** Whose coming back is not waited for, told when all else is over. */
  readonly excused?: () => ReadonlySet<string>;
  /** Not all that happens can be known from events. */
  readonly isDeaf?: () => boolean;
};

/** What can be laid hands on. */
export type Scene = {
  readonly shop: Shop;
  readonly daemon: Daemon;
  readonly client: ClientProcess;
  readonly dir: string;
  /** What became of the containers since the beginning. */
  readonly events: () => readonly Event[];
  /** Whether the client's command has begun. */
  readonly hasBegun: () => Promise<boolean>;
  /** Lets the command end. */
  readonly go: () => Promise<void>;
};

/** All that is known of it afterwards. */
export type Played = {
  readonly operation: 'backup' | 'restore';
  readonly commandCode: number;
  readonly isHookFailing: boolean;
  readonly before: Readonly<Record<string, Life | undefined>>;
  readonly after: Readonly<Record<string, Life | undefined>>;
  readonly events: readonly Event[];
  readonly calls: readonly string[];
  /** The same, as soon as the client had ended. */
  readonly callsAtEnd: readonly string[];
  /** Each answer that was there to be read, by its request; several: it was changed. Of the sh client alone. */
  readonly answers: Readonly<Record<string, readonly string[]>>;
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
  const marks = join(dir, 'marks'); // all that a client in a container may see: who can write the state is refused
  await mkdir(marks);
  await using _prepared = await script.prepare?.(dir);
  const { engineHost = `unix://${engine.socketPath}`, preload = [] } = script;
  const env = script.env?.(dir) ?? {};
  await using daemon = await openDaemon({ dir, hooksDir, scope: project, engineHost, kills, names, env, preload });
  const waiting = script.waits
    ? `i=0; until [ -e '${marks}/go' ] || [ $i -ge 450 ]; do i=$((i+1)); sleep 0.2; done`
    : '';
  const command = `: >'${marks}/begin-'$$; sleep 0.2; ${waiting}\n: >'${marks}/end-'$$; exit ${commandCode}`;
  const failing = script.isHookFailing ? ['--param', 'FAIL=40-tool'] : [];
  const { client: kind = 'sh', patience = '2m' } = script;
  const args = ['run', operation, ...failing, '--connect-timeout', patience, '--', 'sh', '-c', command];
  await published(daemon.runDir);
  using answers = watchAnswers(daemon.runDir);
  script.prelude?.(daemon);
  await using client = await startClient({ kind, runDir: daemon.runDir, dir, args, engine, marks, project });

  const missed: string[] = [];
  const wait = async (what: string, deadlineMs: number, condition: () => Promise<boolean> | boolean): Promise<void> => {
    // Whoever is asked may be away meanwhile.
    const isSo = async (): Promise<boolean> => Promise.resolve(condition()).catch(() => false);
    await until(isSo, { what, deadlineMs, everyMs: 100 }).catch((error: Error) => void missed.push(error.message));
  };
  const events = () => shop.eventsSince(beganAt);
  const hasBegun = async (): Promise<boolean> => (await commandsOf(marks)).length > 0;
  const go = (): Promise<void> => writeFile(join(marks, 'go'), '');
  await script.meanwhile?.({ shop, daemon, client, dir, events, hasBegun, go });
  await wait('the client to end', CLIENT_MS, () => client.exitCode() !== undefined);
  const callsAtEnd = await shop.calls();
  const commands = await commandsOf(marks);
  const isKept = operation === 'restore' && client.exitCode() !== 0 && commands.length > 0;
  await wait('the run to be over', SETTLE_MS, async () => isOver(await runsOf(daemon), isKept));
  const areUp = async (): Promise<boolean> => {
    const excused = script.excused?.() ?? new Set();
    const judged = shop.services.filter(({ name }) => !excused.has(name));
    return isAsMeant(judged, await shop.lives());
  };
  if (!isKept) await wait('all that ran to run', SETTLE_MS, areUp);
  if (script.isDeaf?.() !== true) {
    await wait('the engine to have told it all', SETTLE_MS, async () => isTold(await shop.lives(), before, events()));
  }
  const after = await shop.lives();
  const lives = await Promise.all(
    daemon.lives().map(async (life) => ({
      kill: life.kill,
      points: await life.points(),
      endedBy: life.end()?.signal ?? life.end()?.code?.toString(),
    })),
  );
  // It asks the engine itself, and so comes after the points; and it may come by the one that is fatal.
  const askStatus = () => daemon.ask<Status>('/v1/status');
  const status = await until(askStatus, { what: 'status', deadlineMs: SETTLE_MS }).catch(() => undefined);
  if (isKept) {
    await daemon.ask('/v1/release', { all: true });
    await wait('what a failed restore kept to run', SETTLE_MS, areUp);
  }
  await daemon.stop();
  return {
    ...{ operation, commandCode, before, after, lives, status, missed, isKept, callsAtEnd },
    answers: answers.seen(),
    isHookFailing: script.isHookFailing === true,
    commands: await commandsOf(marks),
    events: events(),
    calls: await shop.calls(),
    exitCode: client.exitCode(),
    clientSaid: client.err(),
    log: await daemon.log(),
  };
}

/** Two files for each time that the command ran. Their times are those of the engine's events, but for some ms. */
async function commandsOf(dir: string): Promise<Played['commands']> {
  const names = (await readdir(dir)).filter((name) => name.startsWith('begin-'));
  const momentOf = (name: string): Promise<bigint | undefined> =>
    stat(join(dir, name), { bigint: true }).then(
      ({ mtimeNs }) => mtimeNs,
      () => undefined,
    );
  return Promise.all(
    names.map(async (name) => ({
      beganAt: (await momentOf(name)) ?? 0n,
      endedAt: await momentOf(name.replace('begin', 'end')),
    })),
  );
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
