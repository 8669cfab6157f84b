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
  /** How long each hook of `pre` lasts. */
  readonly hookSeconds?: number;
  /** Another job's backup begins while the first one's command runs, and ends after it. */
  readonly isOverlapped?: true;
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
  /** Asked while they are waited for: who else is excused may be known by now. */
  readonly learn?: (daemon: Daemon) => Promise<void>;
  /** The engine checks nobody's health any more. */
  readonly isHealthLost?: () => boolean;
  /** Not all that happens can be known from events. */
  readonly isDeaf?: () => boolean;
  /** How long the world gets to come back; the client as well. */
  readonly settleMs?: number;
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

/** What became of one client, and of its command. */
export type Ended = {
  /** undefined: it never ended. */
  readonly exitCode: number | undefined;
  /** When the client's command began and ended, each time that it ran; in nanoseconds. */
  readonly commands: readonly { readonly beganAt: bigint; readonly endedAt: bigint | undefined }[];
  readonly clientSaid: string;
  /** What the hooks wrote, as soon as the client had ended. */
  readonly callsAtEnd: readonly string[];
};

/** All that is known of it afterwards. */
export type Played = Ended & {
  readonly operation: 'backup' | 'restore';
  readonly commandCode: number;
  readonly isHookFailing: boolean;
  /** What is in hooks.d. */
  readonly hooks: readonly string[];
  /** The other job's client. */
  readonly other: Ended | undefined;
  readonly before: Readonly<Record<string, Life | undefined>>;
  readonly after: Readonly<Record<string, Life | undefined>>;
  readonly events: readonly Event[];
  readonly calls: readonly string[];
  /** Each answer that was there to be read, by its request; several: it was changed. Of the sh client alone. */
  readonly answers: Readonly<Record<string, readonly string[]>>;
  /** 5.3: a restore whose command ran, and did not succeed. */
  readonly isKept: boolean;
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

/** How the notes of the other job's hooks begin. */
export const OTHER = 'other/';

/** How long the world gets to come back. Nothing takes a tenth of it, but a machine may be loaded. */
const SETTLE_MS = 180_000;
const CLIENT_MS = 300_000;
/** Once something was waited for in vain. */
const VAIN_MS = 5000;

/** Plays it, and waits until all is over; judges nothing. */
export async function play(shop: Shop, script: Script): Promise<Played> {
  const { operation, commandCode = 0, kills = [], isOverlapped = false } = script;
  const { settleMs = SETTLE_MS, settleMs: clientMs = CLIENT_MS } = script;
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
  const commandIn = (where: string, waits: boolean): readonly string[] => {
    const waiting = waits ? `i=0; until [ -e '${where}/go' ] || [ $i -ge 450 ]; do i=$((i+1)); sleep 0.2; done` : '';
    return ['sh', '-c', `: >'${where}/begin-'$$; sleep 0.2; ${waiting}\n: >'${where}/end-'$$; exit ${commandCode}`];
  };
  const { client: kind = 'sh', patience = '2m' } = script;
  const options = [
    ...(script.isHookFailing ? ['--param', 'FAIL=40-tool'] : []),
    ...(script.hookSeconds === undefined ? [] : ['--param', `LASTS=${script.hookSeconds}`]),
    ...['--connect-timeout', patience],
  ];
  const args = ['run', operation, ...options, '--', ...commandIn(marks, script.waits === true || isOverlapped)];
  await published(daemon.runDir);
  using answers = watchAnswers(daemon.runDir);
  script.prelude?.(daemon);
  await using client = await startClient({ kind, runDir: daemon.runDir, dir, args, engine, marks, project });

  const missed: string[] = [];
  const wait = async (what: string, deadlineMs: number, condition: () => Promise<boolean> | boolean): Promise<void> => {
    // Whoever is asked may be away meanwhile.
    const isSo = async (): Promise<boolean> => Promise.resolve(condition()).catch(() => false);
    const leftMs = missed.length === 0 ? deadlineMs : VAIN_MS;
    await until(isSo, { what, deadlineMs: leftMs, everyMs: 100 }).catch(
      (error: Error) => void missed.push(error.message),
    );
  };
  const events = () => shop.eventsSince(beganAt);
  const hasBegun = async (): Promise<boolean> => (await commandsOf(marks)).length > 0;
  const go = (): Promise<void> => writeFile(join(marks, 'go'), '');
  await script.meanwhile?.({ shop, daemon, client, dir, events, hasBegun, go });
  await using clients = new AsyncDisposableStack();
  const playOther = async (): Promise<() => Promise<Ended>> => {
    const place = join(dir, 'other');
    await mkdir(place);
    const job = ['--job', 'other', '--param', `AS=${OTHER}`, '--connect-timeout', patience];
    const its = { kind, runDir: daemon.runDir, dir: place, engine, marks: place, project };
    const isBegun = async (): Promise<boolean> => (await hasBegun()) || client.exitCode() !== undefined;
    await wait('the command to begin', clientMs, isBegun);
    const args = ['run', operation, ...job, '--', ...commandIn(place, true)];
    const other = clients.use(await startClient({ ...its, args }));
    const isUnderWay = async (): Promise<boolean> =>
      (await commandsOf(place)).length > 0 || other.exitCode() !== undefined;
    await wait("the other job's command to begin", clientMs, isUnderWay);
    await go();
    return async () => {
      await writeFile(join(place, 'go'), '');
      await wait("the other job's client to end", clientMs, () => other.exitCode() !== undefined);
      const [exitCode, callsAtEnd] = [other.exitCode(), await shop.calls()];
      return { exitCode, commands: await commandsOf(place), clientSaid: other.err(), callsAtEnd };
    };
  };
  const endOther = isOverlapped ? await playOther() : undefined;
  await wait('the client to end', clientMs, () => client.exitCode() !== undefined);
  const callsAtEnd = await shop.calls();
  const other = await endOther?.();
  const commands = await commandsOf(marks);
  const isKept = operation === 'restore' && client.exitCode() !== 0 && commands.length > 0;
  await wait('the run to be over', settleMs, async () => isOver(await runsOf(daemon), isKept));
  const areUp = async (): Promise<boolean> => {
    const excused = script.excused?.() ?? new Set();
    const judged = shop.services.filter(({ name }) => !excused.has(name));
    const isUp = isAsMeant(judged, await shop.lives(), script.isHealthLost?.() !== true);
    if (!isUp) await script.learn?.(daemon);
    return isUp;
  };
  if (!isKept) await wait('all that ran to run', settleMs, areUp);
  if (script.isDeaf?.() !== true) {
    await wait('the engine to have told it all', settleMs, async () => isTold(await shop.lives(), before, events()));
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
  const status = await until(askStatus, { what: 'status', deadlineMs: settleMs }).catch(() => undefined);
  if (isKept) {
    await daemon.ask('/v1/release', { all: true });
    await wait('what a failed restore kept to run', settleMs, areUp);
  }
  await daemon.stop();
  return {
    ...{ operation, commandCode, before, after, lives, status, missed, isKept, callsAtEnd, other },
    answers: answers.seen(),
    hooks: shop.hooks,
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
