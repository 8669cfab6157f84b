/** The stories in which the daemon is killed at every point. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { until } from '../support/until.ts';
import { type Excuse, noExcuse, tell, violationsOf } from './laws.ts';
import { play, type Scene, type Script } from './play.ts';
import { HOOKS, openShop, type Service } from './shop.ts';

export type Case = {
  readonly what: string;
  readonly script: Script;
  /** Which of the daemon's lives ends at a point; those before it end where `script.kills` says. */
  readonly life?: number;
  /** The points begin here: up to it all is as in another story, and killed there. */
  readonly since?: string;
  /** Those alone that it is about. */
  readonly among?: RegExp;
  readonly services?: readonly Service[];
  readonly hooks?: readonly string[];
  readonly excuse?: () => Excuse;
  /** All its points are tried in CI. */
  readonly isWhole?: true;
};

/** Killed together with its command, a client has no other code. */
const EXIT_SIGKILL = 137;

/** Up to here a story goes as any other that wants the same. */
const PRE_ENDS = 'before journal atomically #1';

export const CASES: readonly Case[] = [
  { what: 'a backup', script: { operation: 'backup' }, isWhole: true },
  { what: 'a restore', script: { operation: 'restore' }, isWhole: true },
  {
    what: 'a backup whose last hook fails',
    script: { operation: 'backup', isHookFailing: true },
    since: 'before journal stepEnded failed #1',
    isWhole: true,
  },
  { what: 'a restore that fails', script: { operation: 'restore', commandCode: 9 }, since: PRE_ENDS, isWhole: true },
  {
    what: 'a backup whose client is killed',
    script: { operation: 'backup', waits: true, meanwhile: killClient },
    excuse: () => ({ ...noExcuse(), codes: new Set([75, EXIT_SIGKILL]) }),
    since: PRE_ENDS,
  },
  {
    what: 'two backups that share what they hold',
    script: { operation: 'backup', isOverlapped: true },
    hooks: HOOKS.filter((hook) => hook !== '20-db'), // whoever has a hook in what another holds waits for that one's end
    since: PRE_ENDS,
  },
  {
    what: 'a backup whose hooks take their time',
    script: { operation: 'backup', hookSeconds: 4 },
    among: /^after (journal stepStarted|engine POST .exec.ID\d+.start) #/,
    isWhole: true,
  },
  {
    what: 'the recovery from a kill in the middle of pre',
    script: { operation: 'backup', kills: ['after engine POST /containers/db/stop #1'] },
    life: 1,
  },
  {
    what: 'the recovery from a kill in the middle of post',
    script: { operation: 'backup', kills: ['after engine POST /containers/db/start #1'] },
    life: 1,
  },
];

/** With its command, in the middle of that. */
async function killClient({ client, hasBegun }: Scene): Promise<void> {
  const isTime = async (): Promise<boolean> => (await hasBegun()) || client.exitCode() !== undefined;
  await until(isTime, { what: 'the command to begin', deadlineMs: 300_000, everyMs: 50 });
  client.signal('SIGKILL', 'all');
}

const STUBBORN: readonly Service[] = [
  { name: 'db', hold: 'stop', ignoresTermSeconds: 10 },
  { name: 'app', hold: 'stop', after: { db: 'service_started' } },
  { name: 'tool' },
];

/** The daemon is killed some time after it asked what ignores TERM to stop. Resolves to the laws that were broken. */
export async function killInStop(socketPath: string, afterMs: number): Promise<readonly string[]> {
  await using shop = await openShop(socketPath, STUBBORN);
  const played = await play(shop, {
    operation: 'backup',
    async meanwhile({ daemon, events }) {
      const isAsked = () => events().some(({ name, what }) => name === 'db' && what === 'kill');
      await until(isAsked, { what: 'db to be asked to end', deadlineMs: 120_000, everyMs: 10 });
      await pause(afterMs);
      daemon.kill();
    },
  });
  const ends = played.events.filter(({ name, what }) => name === 'db' && ['die', 'start'].includes(what));
  const row = ends.map(({ what }) => what).join(', ');
  const broken = [
    ...violationsOf(shop.services, played),
    ...(played.exitCode === 75 ? [] : [`exit code ${played.exitCode}, and its pre was cut short`]),
    ...(row === 'die, start' ? [] : [`db was to be stopped, and started once, and this became of it: ${row}`]),
  ];
  return broken.length === 0 ? [] : [...broken, tell(played)];
}

/**
 * The daemon is killed while a hook of `pre` runs on the host, for so long that it would outlast all else. Resolves to
 * the laws that were broken.
 */
export async function killInHook(socketPath: string): Promise<readonly string[]> {
  await using shop = await openShop(socketPath);
  const played = await play(shop, {
    operation: 'backup',
    hookSeconds: 120,
    async meanwhile({ daemon }) {
      const isUnderWay = async () => (await shop.calls()).includes('10-host pre begin');
      await until(isUnderWay, { what: 'the hook to begin', deadlineMs: 120_000, everyMs: 20 });
      daemon.kill();
    },
  });
  const leftovers = await processesOf(join(shop.hooksDir, '10-host'));
  for (const pid of leftovers) process.kill(pid, 'SIGKILL');
  const broken = [
    ...violationsOf(shop.services, played),
    ...leftovers.map(() => 'the pre of hook 10-host goes on, and its run is over'),
  ];
  return broken.length === 0 ? [] : [...broken, tell(played)];
}

/** The ids of all that were started with this word. */
async function processesOf(word: string): Promise<readonly number[]> {
  const ids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const isIts = async (id: string): Promise<boolean> =>
    (await readFile(`/proc/${id}/cmdline`, 'utf8').catch(() => '')).split('\0').includes(word);
  const found = await Promise.all(ids.map(async (id) => ((await isIts(id)) ? [Number(id)] : [])));
  return found.flat();
}
