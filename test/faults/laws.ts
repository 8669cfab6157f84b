/** What must hold after every run, whatever died meanwhile: told from the engine, the hooks' own notes and the client. */
import type { Event } from './engine-view.ts';
import { OTHER, type Played } from './play.ts';
import type { Service } from './shop.ts';

/** What need not hold after a fault, since it is the fault's own doing. It grows while the story goes on. */
export type Excuse = {
  /** Who need not run: somebody else saw to that. */
  readonly down: Set<string>;
  /** Persons, or the engine, start and stop by an order of their own. */
  anyOrder: boolean;
  /** Told to end, the sidecar starts in order and waits for nobody's health. */
  hasty: boolean;
  /** Events were lost: what happened meanwhile, nobody knows. */
  deaf: boolean;
  /** An engine that dies beside a first check of health leaves that container `starting` for ever (20.10). */
  healthLost: boolean;
  /** What is not held is touched all the same. */
  touched: boolean;
  /** Where a hook's container is gone, or cannot be asked, its `post` cannot run. */
  noContainerHooks: boolean;
  /** The daemon may end by itself. */
  ends: boolean;
  /** What is held may be let go of while the command still reads; its client is to be told. */
  losesHolds: boolean;
  /** Beside the command's own. */
  codes: 'any' | Set<number>;
};

/** Nothing is excused: whatever happened, happened to the sidecar alone. */
export function noExcuse(): Excuse {
  const flags = {
    anyOrder: false,
    hasty: false,
    deaf: false,
    healthLost: false,
    touched: false,
    noContainerHooks: false,
    ends: false,
    losesHolds: false,
  };
  return { down: new Set(), codes: new Set([75]), ...flags };
}

/** Every law that was broken, in words; none: all is well. */
export function violationsOf(services: readonly Service[], played: Played, excuse = noExcuse()): readonly string[] {
  const judged = services.filter(({ name }) => !excuse.down.has(name));
  return [
    ...played.missed,
    ...(excuse.ends ? [] : daemonsOwn(played)),
    ...whatRuns(judged, played, excuse),
    ...(excuse.anyOrder || excuse.deaf ? [] : orderOf(services, played, excuse)),
    ...ofOneJob(
      judged,
      withCalls(played, (line) => !line.startsWith(OTHER)),
      excuse,
    ),
    ...(played.other === undefined ? [] : ofTheOther(judged, { ...played, ...played.other }, excuse)),
    ...oneAnswer(played),
    ...statusTells(judged, played, excuse),
  ];
}

/** The daemon ends by our hand alone, and its journal opens each time. */
function daemonsOwn({ lives }: Played): string[] {
  return lives
    .filter(({ endedBy }) => endedBy !== undefined && endedBy !== 'SIGKILL')
    .map(({ endedBy }, index) => `life ${index + 1} of the daemon ended by itself: ${endedBy}`);
}

/** P1, P2: all that ran runs, nothing else does, and what was not to be held was not touched. */
function whatRuns(services: readonly Service[], played: Played, { touched, codes }: Excuse): string[] {
  const { isKept } = played;
  return services.flatMap(({ name, hold, isIdle }) => {
    const [before, after] = [played.before[name], played.after[name]];
    if (after === undefined) return [`${name} is gone`];
    if (isIdle)
      return after.isRunning || after.startedAt !== before?.startedAt
        ? [`${name} was started, and did not run before`]
        : [];
    if (hold === undefined)
      return touched || after.startedAt === before?.startedAt ? [] : [`${name} was touched, and is not held`];
    // 5.3: over a half-restored volume nothing is started behind anyone's back.
    if (isKept && codes === 'any') return []; // its client may have died before, or after, its post was taken
    if (isKept)
      return after.isRunning || after.startedAt !== before?.startedAt
        ? [`${name} was started after a failed restore`]
        : [];
    return after.isRunning ? [] : [`${name} ran before, and is ${after.status} now`];
  });
}

/** Nothing is started before what it needs is up, nor stopped while what needs it runs. */
function orderOf(services: readonly Service[], { before, events }: Played, { hasty }: Excuse): string[] {
  const broken: string[] = [];
  const up = new Map(services.map(({ name }) => [name, before[name]?.isRunning === true]));
  const healthy = new Map(services.map(({ name }) => [name, before[name]?.health === 'healthy']));
  for (const { name, what } of events) {
    const service = services.find((one) => one.name === name);
    if (service === undefined) continue;
    if (what === 'start' || what === 'unpause') {
      for (const [other, condition] of Object.entries(service.after ?? {})) {
        if (!up.get(other)) broken.push(`${name} was started (${what}) while ${other} did not run`);
        else if (!hasty && condition === 'service_healthy' && !healthy.get(other))
          broken.push(`${name} was started (${what}) before ${other} was healthy`);
      }
      up.set(name, true);
    } else if (what === 'die' || what === 'pause') {
      for (const other of services) {
        const needsIt = Object.hasOwn(other.after ?? {}, name) && other.hold !== undefined;
        if (needsIt && up.get(other.name)) broken.push(`${name} was stopped (${what}) while ${other.name} ran`);
      }
      up.set(name, false);
      healthy.set(name, what === 'pause' && healthy.get(name) === true);
    } else if (what === 'health_status: healthy') healthy.set(name, true);
  }
  return broken;
}

/** What one client, its command and its hooks say. */
function ofOneJob(services: readonly Service[], played: Played, excuse: Excuse): string[] {
  return [
    ...hookCounts(played, excuse),
    ...exitCodes(played, excuse),
    ...beginnings(played),
    ...(excuse.deaf ? [] : stillness(services, played, excuse)),
    ...withdrawn(played),
  ];
}

/** The same of the other job, whose hooks put a word before their notes. */
function ofTheOther(services: readonly Service[], played: Played, excuse: Excuse): string[] {
  const its = withCalls(played, (line) => line.startsWith(OTHER));
  return ofOneJob(services, its, excuse).map((what) => `the other job: ${what}`);
}

function withCalls(played: Played, isIts: (line: string) => boolean): Played {
  const its = (lines: readonly string[]) => lines.filter(isIts).map((line) => line.replace(OTHER, ''));
  return { ...played, calls: its(played.calls), callsAtEnd: its(played.callsAtEnd) };
}

/** At `pre` at most once; at `post` at least once where its `pre` ran; nothing of a `pre` goes on beside its `post`. */
function hookCounts(played: Played, { noContainerHooks, codes }: Excuse): string[] {
  const { hooks, calls, lives, operation, exitCode } = played;
  const isOwed = operation === 'backup' || exitCode === 0; // a restore that did not succeed has no post
  const crashes = lives.length - 1;
  const isAsked = (hook: string): boolean => !noContainerHooks || hook === '10-host' || hook === '30-held';
  return hooks.flatMap((hook) => {
    const count = (line: string): number => calls.filter((one) => one === `${hook} ${line}`).length;
    const broken: string[] = [];
    if (count('pre begin') > 1) broken.push(`hook ${hook} ran ${count('pre begin')} times at pre`);
    if (isOwed && isAsked(hook) && count('pre begin') > 0 && count('post end') === 0)
      broken.push(`hook ${hook} ran at pre, and never at post`);
    if (!isOwed && codes !== 'any' && count('post begin') > 0)
      broken.push(`hook ${hook} ran at post, after a restore that did not succeed`);
    const losses = isAsked(hook) ? 0 : 2; // one that an engine loses track of is repeated, and two things happen at most
    if (count('post begin') > 1 + crashes + losses)
      broken.push(`hook ${hook} ran ${count('post begin')} times at post`);
    const [post, late] = [calls.indexOf(`${hook} post begin`), calls.lastIndexOf(`${hook} pre end`)];
    if (post !== -1 && late > post) broken.push(`the pre of hook ${hook} ended after its post had begun`);
    return broken;
  });
}

/** One answer: 75 and nothing was run, or the command's own code and it ran once. */
function exitCodes(played: Played, { codes }: Excuse): string[] {
  const { exitCode, commandCode, isHookFailing, commands, clientSaid } = played;
  if (exitCode === undefined) return ['the client never ended'];
  if (commands.length > 1) return [`the command ran ${commands.length} times`];
  if (exitCode === 0 && commands.length === 0) return ['exit code 0, and the command never ran'];
  if (codes === 'any') return exitCode === 0 && commandCode !== 0 ? ['exit code 0, and the command failed'] : [];
  const isRefusal = exitCode === 75 || isHookFailing;
  if (exitCode !== (isHookFailing ? 3 : commandCode) && !codes.has(exitCode))
    return [`exit code ${exitCode}: ${clientSaid.trim()}`];
  const times = isRefusal ? 0 : 1;
  return commands.length === times
    ? []
    : [`the command ran ${commands.length} times, and the exit code is ${exitCode}`];
}

/** P5: no `pre`, no command. */
function beginnings({ commands, hooks, calls }: Played): string[] {
  if (commands.length === 0) return [];
  return hooks
    .filter((hook) => !calls.includes(`${hook} pre end`))
    .map((hook) => `the command ran, and the pre of hook ${hook} had not ended`);
}

/** An answer that was given stays as it is. */
function oneAnswer({ answers }: Played): string[] {
  return Object.entries(answers)
    .filter(([, texts]) => texts.length > 1)
    .map(([name, texts]) => `${name} was answered ${texts.length} times: ${JSON.stringify(texts)}`);
}

/** No hook of a `pre` begins whose client has ended by itself: it had its answer, or had given up. */
function withdrawn({ calls, callsAtEnd, exitCode }: Played): string[] {
  if (exitCode === undefined || exitCode === KILLED || exitCode === POWERLESS) return [];
  const countOf = (all: readonly string[]): number => all.filter((line) => line.endsWith(' pre begin')).length;
  const [atEnd, after] = [countOf(callsAtEnd), countOf(calls)];
  return atEnd === after ? [] : [`${after - atEnd} hooks began at pre when their client had gone with ${exitCode}`];
}

/** Of a client that SIGKILL ended, and of a container that was not there any more when its engine was back. */
const KILLED = 137;
const POWERLESS = 255;

/**
 * P9: a backup that counts as good was made while all that was to be held was still. Whose client was killed counts for
 * nobody, but as long as its command reads it holds the lease.
 */
function stillness(services: readonly Service[], played: Played, { anyOrder, losesHolds }: Excuse): string[] {
  const { before, events, commands, exitCode } = played;
  const isLeft = exitCode === KILLED && !anyOrder && !losesHolds;
  if (exitCode !== 0 && !isLeft) return [];
  return commands.flatMap(({ beganAt, endedAt }) => {
    if (endedAt === undefined) return isLeft ? [] : ['the command counts as good, and never ended'];
    return services
      .filter(({ hold, isIdle }) => hold !== undefined && !isIdle)
      .filter(({ name }) => {
        const changes = events.filter((event) => event.name === name && isChange(event));
        const last = changes.findLast(({ at }) => at <= beganAt);
        const ran = last === undefined ? before[name]?.isRunning === true : isRise(last);
        return ran || changes.some((event) => event.at > beganAt && event.at < endedAt && isRise(event));
      })
      .map(
        ({ name }) =>
          `${name} ran while its data were read, and ${isLeft ? 'the command held the lease' : 'the backup counts as good'}`,
      );
  });
}

const isChange = ({ what }: Event): boolean => ['start', 'die', 'pause', 'unpause'].includes(what);
const isRise = ({ what }: Event): boolean => what === 'start' || what === 'unpause';

/** `status` says that something is held if, and only if, it is; and everyone is told of a restore that failed. */
function statusTells(services: readonly Service[], played: Played, { codes }: Excuse): string[] {
  const { status, after, isKept, clientSaid } = played;
  if (status === undefined) return ['status: no answer'];
  const untold: string[] = [];
  if (isKept && codes !== 'any') {
    if (!status.runs.some(({ phase }) => phase === 'kept')) untold.push('status does not tell of a failed restore');
    if (!clientSaid.includes('stay held')) untold.push(`the client was not told what stays held: ${clientSaid}`);
  }
  const lies = services
    .filter(({ hold, isIdle }) => hold !== undefined && !isIdle)
    .flatMap(({ name }) => {
      const isSaid = status.holds.some(({ workload }) => workload.endsWith(`-${name}-1`));
      const isDown = after[name]?.isRunning !== true;
      if (isSaid === isDown) return [];
      return [
        `status says that ${name} is ${isSaid ? '' : 'not '}held, and the engine that it ${isDown ? 'does not run' : 'runs'}`,
      ];
    });
  return [...untold, ...lies];
}

/** The story, for people. */
export function tell(played: Played): string {
  const moment = (at: bigint): string => new Date(Number(at / 1_000_000n)).toISOString().slice(14);
  return [
    `exit code ${played.exitCode}: ${played.clientSaid.trim()}`,
    ...played.lives.map(
      ({ kill, endedBy, points }) =>
        `life: ended by ${endedBy}, was to end at ${kill}, ${points.length} points, the last ${points.slice(-2).join(' | ')}`,
    ),
    `command: ${played.commands.map(({ beganAt, endedAt }) => `${moment(beganAt)} to ${endedAt === undefined ? '?' : moment(endedAt)}`).join(', ')}`,
    ...(played.other === undefined
      ? []
      : [`the other job: exit code ${played.other.exitCode}: ${played.other.clientSaid.trim()}`]),
    `calls: ${played.calls.join(', ')}`,
    `status: ${JSON.stringify(played.status)}`,
    `after: ${JSON.stringify(played.after)}`,
    'events:',
    ...played.events.map(({ name, what, at }) => `  ${moment(at)} ${name} ${what}`),
    'log:',
    played.log,
  ].join('\n');
}
