/** Stories that a seed draws: a backup, or a restore, and one or two things that happen to it. */

import { mkdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { execa } from 'execa';
import { until } from '../support/until.ts';
import { CATALOGUE, type Fault, makeBind, type Stage } from './catalogue.ts';
import type { ClientKind } from './client.ts';
import { makeDice, pick } from './dice.ts';
import type { Lane } from './lane.ts';
import { type Excuse, noExcuse, violationsOf } from './laws.ts';
import { type Played, play, type Scene } from './play.ts';
import { openMoodyProxy } from './proxy.ts';
import { FIVE, openShop, type Service } from './shop.ts';

export type Story = {
  readonly seed: number;
  readonly operation: 'backup' | 'restore';
  readonly commandCode: number;
  readonly client: ClientKind;
  readonly faults: readonly Fault[];
  /** The command does not wait for the faults. */
  readonly isBrief: boolean;
  readonly policies: Readonly<Record<string, string>>;
  /** Which engine it needs; undefined: any. */
  readonly engine: 'plain' | 'live' | undefined;
};

/** What became of a story. */
export type Ending = {
  readonly story: Story;
  readonly violations: readonly string[];
  readonly played: Played;
  /** What came too late: its run was over. */
  readonly missed: readonly string[];
  readonly ms: number;
};

const POLICIES = ['no', 'on-failure', 'always', 'unless-stopped'];
/** Faults that a restore may meet: in the others, persons decide what runs over a half restored volume. */
const FOR_RESTORE = /sidecar is (killed|told)|client|clock|engine (answers|hangs|breaks)|state volume/;
/** Four times what its number takes to grow. */
const COUNTER_TTL = '12s';
const CLIENTS: readonly ClientKind[] = ['sh', 'sh', 'cli', 'no-fifo'];

/** The same seed, the same story. */
export function drawStory(seed: number): Story {
  const dice = makeDice(seed);
  const first = CATALOGUE[(seed - 1) % CATALOGUE.length]?.(dice);
  if (first === undefined) throw new Error(`seed ${seed}: expected a whole number from 1`);
  const second = dice() < 0.4 ? pick(dice, CATALOGUE)(dice) : undefined;
  const faults = second !== undefined && goTogether(first, second) ? [first, second] : [first];
  const mayRestore = faults.every(({ told }) => FOR_RESTORE.test(told));
  const isRestore = mayRestore && dice() < 0.4;
  const anyClient = pick(dice, CLIENTS);
  return {
    ...{ seed, faults },
    operation: isRestore ? 'restore' : 'backup',
    commandCode: dice() < 0.25 ? 9 : 0,
    isBrief: dice() < 0.3,
    policies: Object.fromEntries(FIVE.map(({ name }) => [name, pick(dice, POLICIES)])),
    engine: faults.map(({ needs }) => needs?.engine).find((one) => one !== undefined),
    client: faults.map(({ needs }) => needs?.client).find((one) => one !== undefined) ?? anyClient,
  };
}

function goTogether({ needs: one = {}, told }: Fault, { needs: other = {}, told: also }: Fault): boolean {
  if (told === also) return false;
  if (one.engine !== undefined && other.engine !== undefined) return false;
  if (one.small !== undefined && other.small !== undefined) return false;
  // An engine has its own mounts: a small volume of ours is not there
  const [client, small] = [one.client ?? other.client, one.small ?? other.small];
  if (one.client !== undefined && other.client !== undefined && one.client !== other.client) return false;
  return client !== 'container' || small === undefined;
}

/** The story in a line. */
export function titleOf({ seed, operation, commandCode, client, faults, isBrief }: Story): string {
  const told = faults.map(({ told, phase, afterMs }) => `${told} (${phase}, after ${afterMs} ms)`).join('; ');
  const command = `${operation}${commandCode === 0 ? '' : ' whose command fails'}${isBrief ? ', brief' : ''}`;
  return `seed ${seed}: ${command} (${client}): ${told}`;
}

const CLOCK = resolve(import.meta.dirname, 'tap-clock.ts');

/** Plays it on an engine, in a shop of its own. */
export async function playStory(story: Story, lane: Lane): Promise<Ending> {
  const { operation, commandCode, client, faults, isBrief } = story;
  const began = performance.now();
  const { socketPath } = lane.engine;
  const needs = Object.assign({}, ...faults.map((fault) => fault.needs ?? {})) as NonNullable<Fault['needs']>;
  const term = client === 'no-fifo' ? { SIDEHOOK_LEASE_TTL: COUNTER_TTL } : {};
  const env = Object.assign(term, ...faults.map((fault) => fault.needs?.env ?? {})) as Readonly<Record<string, string>>;
  const services = FIVE.map((service) => dress(service, story, faults));
  await using shop = await openShop(socketPath, services, async (dir, service) =>
    service === 'web' ? [await makeBind(dir)] : [],
  );
  await using proxy = needs.proxy ? await openMoodyProxy(socketPath) : undefined;
  const excuse: Excuse = noExcuse();
  excuse.codes = new Set();
  // The CLI's lease is a connection, which ends with the sidecar; who could open it anew may be dead, too
  excuse.losesHolds = client === 'cli' && faults.length > 1;
  if (client === 'no-fifo') {
    excuse.losesHolds = true; // the machine may stall for longer
    excuse.codes.add(65);
  }
  const missed: string[] = [];

  const meanwhile = async (scene: Scene): Promise<void> => {
    const stage: Stage = { ...scene, lane, proxy, excuse };
    const meet = async (fault: Fault): Promise<void> => {
      if (!(await isTime(fault, scene))) return void missed.push(fault.told);
      // What it wants to lay hands on may be gone, or away, by then.
      await fault.act(stage).catch((error: unknown) => void missed.push(`${fault.told}: ${error}`));
    };
    if (isBrief) await scene.go();
    const early = faults.filter(({ phase }) => phase !== 'post').map(meet);
    const late = faults.filter(({ phase }) => phase === 'post').map(meet);
    await Promise.all(early);
    await scene.go();
    await Promise.all(late);
  };

  const played = await play(shop, {
    ...{ operation, commandCode, client, meanwhile, waits: true },
    ...(needs.patience === undefined ? {} : { patience: needs.patience }),
    prelude: (daemon) => faults.forEach(({ prelude }) => void prelude?.(daemon)),
    ...(proxy === undefined ? {} : { engineHost: proxy.host }),
    ...(needs.clock ? { preload: [CLOCK] } : {}),
    env: (dir) => ({ ...env, ...(needs.clock ? { FAULTS_CLOCK: join(dir, 'clock') } : {}) }),
    prepare: (dir) => mountSmall(dir, needs.small),
    excused: () => excuse.down,
    learn: async (daemon) => {
      if (!excuse.healthLost) return;
      await pause(UNSTARTABLE_MS);
      const status = await daemon.ask<{ holds: readonly Stuck[] }>('/v1/status');
      for (const { workload, why = '' } of status?.holds ?? [])
        if (TASK_IS_LEFT.test(why)) excuse.down.add(workload.split('-').at(-2) ?? '');
    },
    isHealthLost: () => excuse.healthLost,
    isDeaf: () => excuse.deaf || excuse.anyOrder,
  });
  const violations = violationsOf(services, played, excuse);
  return { story, violations, played, missed, ms: Math.round(performance.now() - began) };
}

type Stuck = { readonly workload: string; readonly why?: string };

/** What dockerd says for ever of a container in whose stop it was killed: its runtime has the task still (20.10). */
const TASK_IS_LEFT = /: task [0-9a-f]+: already exists/;
/** Its status is asked for now and then, not all the time. */
const UNSTARTABLE_MS = 2_000;

function dress(service: Service, { policies }: Story, faults: readonly Fault[]): Service {
  const wants = faults.map(({ needs }) => needs?.services?.[service.name] ?? {});
  const policy = faults.some(({ needs }) => needs?.policies) ? { restart: policies[service.name] ?? 'no' } : {};
  return { ...service, more: Object.assign({}, policy, ...wants) };
}

/** Waits for a fault's moment; false when the run was over first. */
async function isTime({ phase, afterMs }: Fault, { events, hasBegun, client }: Scene): Promise<boolean> {
  const has = (...kinds: readonly string[]): boolean => events().some(({ what }) => kinds.includes(what));
  const isNow = async (): Promise<boolean> => {
    if (phase === 'pre') return has('kill', 'pause');
    if (phase === 'held') return hasBegun();
    return phase === 'any' || has('start', 'unpause');
  };
  let isCome = false;
  const isSettled = async (): Promise<boolean> => {
    isCome = await isNow();
    return isCome || client.exitCode() !== undefined;
  };
  await until(isSettled, { what: 'its moment', deadlineMs: 120_000, everyMs: 20 }).catch(() => false);
  if (isCome) await pause(afterMs);
  return isCome;
}

/** A file system of its own, small enough to be full soon. */
async function mountSmall(dir: string, which: 'state' | 'run' | undefined): Promise<AsyncDisposable | undefined> {
  if (which === undefined) return undefined;
  const path = join(dir, which);
  await mkdir(path);
  await execa('mount', ['-t', 'tmpfs', '-o', `size=${which === 'state' ? '6m' : '1m'},mode=0755`, 'tmpfs', path]);
  return {
    async [Symbol.asyncDispose]() {
      await execa('umount', ['--lazy', path]);
    },
  };
}
