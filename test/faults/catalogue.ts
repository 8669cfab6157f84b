/** All that can happen to a backup: each fault with its moment, what it does, and what it excuses. */

import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { execa } from 'execa';
import { BUSYBOX } from '../support/images.ts';
import type { ClientKind } from './client.ts';
import type { Daemon } from './daemon.ts';
import { type Dice, pick, roll } from './dice.ts';
import type { Life } from './engine-view.ts';
import type { Lane } from './lane.ts';
import type { Excuse } from './laws.ts';
import type { Scene } from './play.ts';
import type { Mood, MoodyProxy } from './proxy.ts';
import type { Service } from './shop.ts';

export type Stage = Scene & {
  readonly lane: Lane;
  readonly proxy: MoodyProxy | undefined;
  readonly excuse: Excuse;
};

export type Fault = {
  readonly told: string;
  /** When: at any time, while workloads are made still, with all of them still, or while they come back. */
  readonly phase: 'any' | 'pre' | 'held' | 'post';
  readonly afterMs: number;
  readonly act: (stage: Stage) => Promise<void>;
  /** Done before the client is started. */
  readonly prelude?: (daemon: Daemon) => void;
  /** What has to be made ready for it. */
  readonly needs?: {
    readonly engine?: 'plain' | 'live';
    readonly proxy?: true;
    readonly client?: ClientKind;
    /** How long the client waits for a sidecar. */
    readonly patience?: string;
    readonly clock?: true;
    readonly small?: 'state' | 'run';
    readonly env?: Readonly<Record<string, string>>;
    /** More for compose.yaml, by service. */
    readonly services?: Readonly<Record<string, object>>;
    /** Each workload gets a restart policy. */
    readonly policies?: true;
  };
};

const HELD = ['db', 'cache', 'app', 'web'] as const;
const WEB_PORT = 18_080;
const BIND_DIR = 'bind-web';

type Draw = (dice: Dice) => Fault;

const lengthOf = (dice: Dice): number => roll(dice, 300, 4000);
const momentOf = (dice: Dice): Pick<Fault, 'phase' | 'afterMs'> => {
  const phase = pick(dice, ['any', 'pre', 'held', 'post'] as const);
  return { phase, afterMs: phase === 'any' ? roll(dice, 0, 5000) : roll(dice, 0, 600) };
};
const heldMoment = (dice: Dice): Pick<Fault, 'phase' | 'afterMs'> => ({ phase: 'held', afterMs: roll(dice, 0, 300) });

const killSidecar: Draw = (dice) => {
  const ms = pick(dice, [0, 0, lengthOf(dice)]);
  return {
    ...momentOf(dice),
    told: ms === 0 ? 'the sidecar is killed' : `the sidecar is killed, and back after ${ms} ms`,
    async act({ daemon, excuse }) {
      allow(excuse, 75);
      daemon.kill('SIGKILL', ms);
    },
  };
};

const endSidecar =
  (holds: 'release' | 'keep'): Draw =>
  (dice) => ({
    ...momentOf(dice),
    told: `the sidecar is told to end (shutdown.holds: ${holds}), and started again`,
    needs: { env: { SIDEHOOK_SHUTDOWN_HOLDS: holds } },
    async act({ daemon, excuse }) {
      excuse.ends = true;
      allow(excuse, 75);
      excuse.hasty = true; // a pre under way is undone at once, with either setting
      if (holds === 'release') Object.assign(excuse, { codes: 'any', anyOrder: true, losesHolds: true });
      daemon.kill('SIGTERM');
    },
  });

/** Who gave up, gets nothing: a request is taken, or taken back, by one of two. */
const comeLate: Draw = (dice) => {
  const isFrozen = dice() < 0.5;
  const ms = roll(dice, 800, 4500);
  return {
    phase: 'any',
    afterMs: ms,
    told: `the sidecar is ${isFrozen ? 'stopped' : 'away'} when its client comes, whose patience is 2 s, and back later`,
    needs: { patience: '2s' },
    prelude: (daemon) => (isFrozen ? daemon.freeze('SIGSTOP') : daemon.kill('SIGKILL', ms)),
    async act({ daemon, excuse }) {
      excuse.codes = 'any';
      if (isFrozen) daemon.freeze('SIGCONT');
    },
  };
};

const killClient =
  (whom: 'client' | 'all'): Draw =>
  (dice) => ({
    ...momentOf(dice),
    told: whom === 'client' ? 'the client is killed, and its command lives' : 'the client is killed with its command',
    async act({ client, excuse }) {
      excuse.codes = 'any';
      client.signal('SIGKILL', whom);
    },
  });

const killContainer: Draw = (dice) => ({
  ...momentOf(dice),
  told: 'docker kill of the backup container',
  needs: { client: 'container' },
  async act({ client, excuse }) {
    excuse.codes = 'any';
    client.signal('SIGKILL', 'all');
  },
});

const pauseClient =
  (kind: 'sh' | 'cli'): Draw =>
  (dice) => {
    const whom = pick(dice, ['client', 'all'] as const);
    return {
      ...momentOf(dice),
      told: `the client ${whom === 'all' ? 'and its command are' : 'is'} paused for longer than every term`,
      needs: { client: kind, env: { SIDEHOOK_LEASE_TTL: '1s' } },
      async act({ client }) {
        client.signal('SIGSTOP', whom);
        await pause(5000);
        client.signal('SIGCONT', whom);
      },
    };
  };

/** Without FIFOs nobody can tell a paused client from a dead one: it is given up, and is to say so. */
const pauseCounter: Draw = (dice) => ({
  ...momentOf(dice),
  told: 'the client, which has no FIFOs, and its command are paused for longer than every term',
  needs: { client: 'no-fifo', env: { SIDEHOOK_LEASE_TTL: '8s' } },
  async act({ client, excuse }) {
    Object.assign(excuse, { codes: 'any', losesHolds: true });
    client.signal('SIGSTOP', 'all');
    await pause(14_000);
    client.signal('SIGCONT', 'all');
  },
});

const outstayHold: Draw = (dice) => ({
  ...heldMoment(dice),
  told: 'the client and its command are paused for longer than hold.max',
  needs: { env: { SIDEHOOK_HOLD_MAX: '5s' } },
  async act({ client, excuse }) {
    Object.assign(excuse, { codes: 'any', losesHolds: true });
    client.signal('SIGSTOP', 'all');
    await pause(8000);
    client.signal('SIGCONT', 'all');
  },
});

const killEngine: Draw = (dice) => {
  const engine = pick(dice, ['plain', 'live'] as const);
  const ms = lengthOf(dice);
  const client = pick(dice, ['container', undefined] as const);
  return {
    ...momentOf(dice),
    told: `dockerd is killed, ${engine === 'live' ? 'with' : 'without'} live-restore, and back after ${ms} ms`,
    needs: { engine, policies: true, ...(client === undefined ? {} : { client }) },
    async act({ lane, shop, excuse }) {
      const comesBack = engine === 'plain' ? AFTER_CRASH : undefined;
      await hurtEngine(excuse, shop.services, await shop.lives(), comesBack);
      await lane.engine.stopDaemon('SIGKILL');
      await pause(ms);
      await lane.engine.startDaemon();
    },
  };
};

const cutPower: Draw = (dice) => ({
  ...momentOf(dice),
  told: 'the machine loses its power, and boots again',
  needs: { engine: 'plain', policies: true, client: 'container' },
  async act({ lane, shop, excuse, daemon, client }) {
    await hurtEngine(excuse, shop.services, await shop.lives(), AFTER_BOOT);
    client.signal('SIGKILL', 'all');
    daemon.kill();
    await lane.engine.cutPower();
  },
});

const moodyEngine =
  (mood: Mood): Draw =>
  (dice) => {
    const ms = lengthOf(dice);
    return {
      ...momentOf(dice),
      told: `the engine ${mood} for ${ms} ms`,
      needs: { proxy: true },
      async act({ proxy, excuse }) {
        excuse.codes = 'any';
        excuse.noContainerHooks = true;
        proxy?.setMood(mood);
        await pause(ms);
        proxy?.setMood('well');
      },
    };
  };

const fillVolume =
  (which: 'state' | 'run'): Draw =>
  (dice) => {
    const ms = lengthOf(dice);
    return {
      ...momentOf(dice),
      told: `the ${which === 'state' ? 'state' : 'spool'} volume is full for ${ms} ms`,
      needs: { small: which },
      async act({ daemon, excuse }) {
        excuse.codes = 'any';
        excuse.ends = true;
        const path = join(which === 'state' ? daemon.stateDir : daemon.runDir, 'ballast');
        await execa('dd', ['if=/dev/zero', `of=${path}`, 'bs=4096'], { reject: false });
        await pause(ms);
        await rm(path, { force: true });
      },
    };
  };

const jumpClock: Draw = (dice) => {
  const first = pick(dice, [3_600_000, -3_600_000]);
  return {
    ...momentOf(dice),
    told: `the wall clock jumps an hour ${first > 0 ? 'forward, and two back' : 'back, and two forward'}`,
    needs: { clock: true },
    async act({ dir }) {
      await writeFile(join(dir, 'clock'), String(first));
      await pause(roll(dice, 0, 1500));
      await writeFile(join(dir, 'clock'), String(-first));
    },
  };
};

const removeHeld: Draw = (dice) => {
  const name = pick(dice, HELD);
  return {
    ...heldMoment(dice),
    told: `${name} is removed while it is held`,
    async act({ shop, excuse }) {
      stranger(excuse, name);
      excuse.down.add(name);
      const life = await shop.lifeOf(name);
      await shop.engine.ask('DELETE', `/containers/${life?.id}?force=1`);
    },
  };
};

const recreateHeld: Draw = (dice) => {
  const name = pick(dice, HELD);
  return {
    ...heldMoment(dice),
    told: `${name} is recreated by compose while it is held`,
    async act({ shop, excuse }) {
      stranger(excuse, name);
      await shop.compose('up', '--detach', '--force-recreate', '--no-deps', '--pull', 'never', name);
    },
  };
};

const startHeld: Draw = (dice) => {
  const name = pick(dice, HELD);
  return {
    ...heldMoment(dice),
    told: `${name} is started by someone while it is held`,
    async act({ shop, excuse }) {
      stranger(excuse, name);
      const life = await shop.lifeOf(name);
      await shop.engine.ask('POST', `/containers/${life?.id}/${life?.isPaused ? 'unpause' : 'start'}`);
    },
  };
};

const renameHeld: Draw = (dice) => {
  const name = pick(dice, HELD);
  return {
    ...heldMoment(dice),
    told: `${name} is renamed while it is held`,
    async act({ shop, excuse }) {
      excuse.codes = 'any';
      const life = await shop.lifeOf(name);
      await shop.engine.ask('POST', `/containers/${life?.id}/rename?name=${shop.project}-renamed`);
    },
  };
};

const takePort: Draw = (dice) => {
  const ms = lengthOf(dice);
  const ports = { network_mode: 'bridge', ports: [`127.0.0.1:${WEB_PORT}:80`] };
  return {
    ...heldMoment(dice),
    told: `the port of web is taken by another for ${ms} ms`,
    needs: { services: { web: ports } },
    async act({ shop, excuse, go }) {
      excuse.codes = 'any';
      excuse.anyOrder = true;
      const { Id } = await shop.engine.ask<{ readonly Id: string }>('POST', '/containers/create', {
        Image: BUSYBOX,
        Cmd: ['sleep', '600'],
        ExposedPorts: { '80/tcp': {} },
        HostConfig: { PortBindings: { '80/tcp': [{ HostIp: '127.0.0.1', HostPort: String(WEB_PORT) }] } },
      });
      await shop.engine.ask('POST', `/containers/${Id}/start`);
      await go();
      await pause(ms);
      await shop.engine.ask('DELETE', `/containers/${Id}?force=1`);
    },
  };
};

const loseBind: Draw = (dice) => {
  const ms = lengthOf(dice);
  return {
    ...heldMoment(dice),
    told: `the folder that web mounts is gone for ${ms} ms`,
    needs: { services: { web: {} } },
    async act({ shop, excuse, go }) {
      excuse.codes = 'any';
      excuse.anyOrder = true;
      const path = join(shop.dir, BIND_DIR);
      await rename(path, `${path}-away`);
      await go();
      await pause(ms);
      await rename(`${path}-away`, path);
    },
  };
};

const loseImage: Draw = (dice) => ({
  ...heldMoment(dice),
  told: 'the image of all is removed',
  async act({ shop, excuse }) {
    excuse.codes = 'any';
    await shop.engine.ask('DELETE', `/images/${BUSYBOX}?force=1`);
  },
});

const composeVerb =
  (verb: 'stop' | 'down' | 'up'): Draw =>
  (dice) => ({
    ...momentOf(dice),
    told: `docker compose ${verb === 'up' ? 'up -d' : verb}`,
    async act({ shop, excuse }) {
      stranger(excuse, 'db');
      excuse.touched = true;
      if (verb === 'up') {
        const names = shop.services.filter(({ isIdle }) => isIdle !== true).map(({ name }) => name);
        // It waits for health, and fails where what it waits for is stopped meanwhile: both as it should be.
        await shop.compose('up', '--detach', '--pull', 'never', ...names).catch(() => undefined);
        return;
      }
      for (const { name } of shop.services) excuse.down.add(name);
      await shop.compose(verb);
    },
  });

/** Each kind, in a row: the first fault of a story is that of its seed. */
export const CATALOGUE: readonly Draw[] = [
  killSidecar,
  killClient('client'),
  killClient('all'),
  killContainer,
  killEngine,
  cutPower,
  moodyEngine('answers 500'),
  moodyEngine('hangs'),
  moodyEngine('breaks off'),
  fillVolume('state'),
  fillVolume('run'),
  jumpClock,
  removeHeld,
  recreateHeld,
  startHeld,
  renameHeld,
  takePort,
  loseBind,
  loseImage,
  composeVerb('stop'),
  composeVerb('down'),
  composeVerb('up'),
  pauseClient('sh'),
  pauseClient('cli'),
  pauseCounter,
  outstayHold,
  endSidecar('release'),
  endSidecar('keep'),
  comeLate,
];

function allow(excuse: Excuse, code: number): void {
  if (excuse.codes !== 'any') excuse.codes.add(code);
}

/** Somebody has a hand in it: order and codes are his doing, and a hook's container may not be there. */
function stranger(excuse: Excuse, name: string): void {
  excuse.codes = 'any';
  excuse.anyOrder = true;
  if (name === 'db') excuse.noContainerHooks = true;
}

/** Whom the engine starts again by itself. After a crash it stops what still runs first, as if somebody had told it to. */
const AFTER_CRASH = ['always'];
const AFTER_BOOT = ['always', 'unless-stopped'];

/**
 * What ran when the engine went down comes back by its policy alone; what we had stopped is ours to start.
 * `comesBack`: with which policy; undefined: nothing went down with the engine.
 */
async function hurtEngine(
  excuse: Excuse,
  services: readonly Service[],
  lives: Readonly<Record<string, Life | undefined>>,
  comesBack: readonly string[] | undefined,
): Promise<void> {
  Object.assign(excuse, { codes: 'any', anyOrder: true, deaf: true, healthLost: true, noContainerHooks: true });
  if (comesBack === undefined) return;
  excuse.touched = true;
  for (const { name, more } of services) {
    const policy = (more as { readonly restart?: string } | undefined)?.restart ?? 'no';
    if (lives[name]?.isRunning && !comesBack.includes(policy)) excuse.down.add(name);
  }
}

/** Where web's folder is mounted, and that it is not made where it is missing. */
export async function makeBind(dir: string): Promise<object> {
  await mkdir(join(dir, BIND_DIR), { recursive: true });
  return { type: 'bind', source: resolve(dir, BIND_DIR), target: '/bind', bind: { create_host_path: false } };
}
