/** Backup containers, as `sidehook run` and `sidehook signal` behave in them. */
import type { Request } from '../../src/core/request.ts';
import type { Answer } from '../../src/core/result.ts';
import type { Laws, Reading } from './laws.ts';
import { type ClientSpec, isHeldFor, type Scenario, TERMS } from './scenario.ts';
import type { Volume } from './volume.ts';
import type { World } from './world.ts';

export type ClientParts = {
  readonly world: World;
  readonly volume: Volume;
  readonly laws: Laws;
  readonly scenario: Scenario;
  readonly isUp: () => boolean;
  readonly isRunning: (box: string) => boolean;
  readonly tell: (what: string) => void;
};

export type Client = {
  readonly spec: ClientSpec;
  /** It said its last word, or is dead with its command. */
  isOver(): boolean;
  die(withCommand: boolean): void;
  pause(ms: number): void;
  quit(): void;
  repeat(): void;
};

const CODE_OF_TERM = 143;
const NOT_TRUSTED = 65;
const NO_SIDECAR = 69;
const POLL_MS = 4_000;

class Gone extends Error {}

export function startClient(spec: ClientSpec, parts: ClientParts): Client {
  const { world, volume, laws, scenario, tell } = parts;
  const ref = spec.name;
  const onChange = new Set<() => void>();
  let isDead = false;
  let isOver = false;
  let isQuitting = false;
  let isReading = false;
  let pausedUntilMs = 0;
  let sent = 0;
  let last: { readonly request: Request; readonly ref: string } | undefined;
  let letGo: () => void = () => undefined;
  let endCommand: (code: number) => void = () => undefined;

  const change = (): void => {
    for (const wake of [...onChange]) wake();
  };
  /** Until something may have changed; a client that is paused sees nothing, and a dead one never. */
  const wait = async (ms: number): Promise<void> => {
    const woken = Promise.withResolvers<void>();
    onChange.add(woken.resolve);
    const callOff = world.after(ms, woken.resolve);
    await woken.promise;
    callOff();
    onChange.delete(woken.resolve);
    await going();
  };
  const going = async (): Promise<void> => {
    while (world.now() < pausedUntilMs && !isDead) await world.sleep(pausedUntilMs - world.now());
    if (isDead) throw new Gone();
  };

  const ask = async (state: Request['state'], more: Partial<Request>, as = ref): Promise<Answer> => {
    sent += 1;
    const request: Request = {
      ...{ id: `${spec.name}.${sent}`, client: 'default', operation: spec.operation, state, job: spec.job },
      ...{ waitMs: 0, lease: spec.verb === 'run' ? 'held' : spec.leaseMs, outcome: 'success' },
      ...more,
      params: { REQUEST: `${spec.name}.${sent}` },
    };
    last = { request, ref: as };
    laws.onSent(request);
    if (spec.operation === 'restore' && (state === 'started' || (state === 'pre' && spec.verb === 'signal')))
      laws.doubts.set(spec.name, { job: spec.job });
    volume.send(request, as);
    volume.lifeOf(as).onChange.add(change);
    tell(`${spec.name} asks ${state}`);
    let signMs = world.now();
    for (;;) {
      const answer = volume.answers.get(request.id)?.[0];
      if (answer !== undefined) return answer;
      if (parts.isUp()) signMs = world.now();
      const isOut = world.now() - signMs > TERMS.patienceMs;
      if (isOut || (isQuitting && state === 'pre')) {
        const stays = state === 'post';
        if (!stays && volume.withdraw(request.id)) laws.onWithdrawn(request.id);
        else if (state === 'pre') laws.onSenderDead(request.id);
        tell(`${spec.name} gives ${state} up`);
        return { exitCode: isQuitting ? CODE_OF_TERM : NO_SIDECAR, notes: [], message: 'gave up' };
      }
      await wait(POLL_MS);
    }
  };

  const command = async (runId: string): Promise<{ code: number; reading: Reading }> => {
    const still = new Set(scenario.boxes.filter((box) => isHeldFor(box, spec)).map(({ name }) => name));
    const held = new Set([...still].filter((name) => laws.wanted.get(name) === 'running'));
    const reading: Reading = { client: spec, runId, still, held, fromMs: world.now(), isWhole: false };
    laws.readings.push(reading);
    for (const name of [...still].filter(parts.isRunning)) reading.lost ??= `${name} runs as the command begins`;
    tell(`${spec.name} reads`);
    const ended = Promise.withResolvers<number>();
    const letGoOfLease = volume.hold(ref);
    const callOff = world.after(spec.commandMs, () => endCommand(spec.code));
    isReading = true;
    endCommand = (code) => {
      if (!isReading) return;
      isReading = false;
      callOff();
      reading.toMs = world.now();
      reading.exit = code;
      tell(`${spec.name}'s command ends: ${code}`);
      if (spec.verb === 'run') letGoOfLease();
      ended.resolve(code);
    };
    const look = (): void => {
      const { abandoned } = volume.lifeOf(ref);
      if (abandoned !== undefined && spec.operation === 'restore') world.after(50, () => endCommand(CODE_OF_TERM));
    };
    volume.lifeOf(ref).onChange.add(look);
    look();
    const code = await ended.promise;
    await going();
    return { code, reading };
  };

  const conclude = (exitCode: number, reading?: Reading): void => {
    isOver = true;
    tell(`${spec.name} exits ${exitCode}`);
    if (exitCode === 0) laws.doubts.delete(spec.name);
    if (exitCode === 0 && reading?.lost !== undefined) laws.breaks('65', `${spec.name} exits 0, and ${reading.lost}`);
    letGo();
  };

  /** A restore that was given up before its command ended well stays held. */
  const learn = ({ message = '' }: Answer, reading: Reading): void => {
    if (message.includes(' is over: ')) reading.isWhole = false;
  };

  const run = async (): Promise<void> => {
    letGo = volume.hold(ref);
    const pre = await ask('pre', { waitMs: spec.waitMs });
    if (pre.exitCode !== 0) return conclude(pre.exitCode);
    const runId = pre.runId ?? 'none';
    let code = 0;
    let reading: Reading | undefined;
    if (spec.operation === 'restore') {
      const started = await ask('started', { runId });
      code = started.exitCode;
    }
    if (code === 0 && isQuitting) code = CODE_OF_TERM;
    if (code === 0) ({ code, reading } = await command(runId));
    const outcome = code === 0 ? 'success' : 'failure';
    if (reading !== undefined && code === 0) reading.isWhole = true;
    const post = await ask('post', { runId, status: code, outcome });
    if (reading !== undefined) learn(post, reading);
    const { abandoned } = volume.lifeOf(ref);
    if (code !== 0) return conclude(code, reading);
    conclude(abandoned === undefined ? post.exitCode : NOT_TRUSTED, reading);
  };

  const signals = async (): Promise<void> => {
    const invoke = async (state: Request['state'], more: Partial<Request>): Promise<Answer> => {
      const as = `${ref}-${state}`;
      letGo = volume.hold(as);
      const answer = await ask(state, more, as);
      letGo();
      return answer;
    };
    const pre = await invoke('pre', { waitMs: spec.waitMs });
    if (pre.exitCode !== 0) return conclude(pre.exitCode);
    if (spec.inspects) await invoke('inspect', { runId: pre.runId ?? 'none' });
    const { code, reading } = await command(pre.runId ?? 'none');
    if (spec.forgets) {
      isOver = true;
      return;
    }
    if (code === 0) reading.isWhole = true;
    const outcome = code === 0 ? 'success' : 'failure';
    const post = await invoke('post', { runId: pre.runId ?? 'none', status: code, outcome });
    learn(post, reading);
    conclude(code === 0 ? post.exitCode : code, reading);
  };

  (spec.verb === 'run' ? run() : signals()).catch((error) => {
    if (!(error instanceof Gone)) throw error;
  });

  return {
    spec,
    isOver: () => isOver || (isDead && !isReading),
    die(withCommand) {
      if (isOver) return;
      isDead = true;
      tell(`${spec.name} dies${withCommand ? ' with its command' : ''}`);
      if (withCommand) endCommand(137);
      letGo();
      if (last !== undefined) laws.onSenderDead(last.request.id);
      change();
    },
    pause(ms) {
      pausedUntilMs = world.now() + ms;
      tell(`${spec.name} is paused for ${ms} ms`);
    },
    quit() {
      if (isDead || isOver) return;
      isQuitting = true;
      tell(`${spec.name} is interrupted`);
      endCommand(CODE_OF_TERM);
      change();
    },
    repeat() {
      if (last === undefined || isDead) return;
      tell(`${spec.name} repeats ${last.request.id}`);
      volume.send(last.request, last.ref);
    },
  };
}
