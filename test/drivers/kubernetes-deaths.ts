/** Backups whose sidecar dies at one of its writes, to the journal or to the API, over whatever API server. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { until } from '../support/until.ts';
import type { openNamespace, Point } from './kubernetes-sidehook.ts';

/** Workloads that say with `ANNOTATIONS` what a backup does to them, and what is known of them without us. */
export type World = AsyncDisposable & {
  readonly namespace: Awaited<ReturnType<typeof openNamespace>>;
  /** Waits until all that is to run is ready, and forgets what hooks wrote. */
  settle(): Promise<void>;
  /** Those of the Deployments `web` (2 at first), `api` (1) and `idle` (0): `2,1,0`. */
  replicas(): Promise<string>;
  leases(): Promise<readonly string[]>;
  /** What the hook in `db`, a StatefulSet that is not held, wrote: lines of `pre` and `post`. */
  diary(): Promise<readonly string[]>;
};

const HOLD = { 'sidehook.io/hold': 'scale' };

/** By workload; `diary` is the file that the hook writes to. */
export const annotations = (diary: string) => ({
  web: { ...HOLD, 'sidehook.io/hold.after': 'api' },
  api: HOLD,
  idle: HOLD,
  db: { 'sidehook.io/backup.pre': `echo pre >>${diary}`, 'sidehook.io/backup.post': `echo post >>${diary}` },
});

/** `restarted`: with its journal; `lost`: without, and another sidehook is there. The client dies with it. */
export type Afterwards = 'restarted' | 'lost';

/** Which writes are tried: each nth, from one of them on. */
export type Sample = { readonly every: number; readonly from: number; readonly atOnce: number };

const MEND_MS = 300_000;
let stories = 0;

/**
 * Kills the sidecar at the writes of a sample, each in a backup of its own, in several worlds side by side. @throws
 * naming each write after which something was not as it should be
 */
export async function killAtEach(
  openWorld: () => Promise<World>,
  afterwards: Afterwards,
  { every, from, atOnce }: Sample,
  context: TestContext,
): Promise<void> {
  const { points } = await inWorld(openWorld, (world) => oneBackup(world, () => false, afterwards));
  assert.ok(points.length > 60, `only ${points.length} writes`);
  const positions = points.keys().filter((position) => position % every === from % every);
  const failures: string[] = [];
  let died = 0;
  const work = async (): Promise<void> => {
    let isDone = false;
    while (!isDone) {
      isDone = await inWorld(openWorld, async (world) => {
        for (const position of positions) {
          const { wrong, diedAt } = await oneBackup(world, at(position), afterwards);
          if (diedAt !== undefined) died += 1;
          failures.push(...wrong.map((what) => `${position} (${diedAt}): ${what}`));
          if (wrong.length > 0) return false; // who knows what is left of it
        }
        return true;
      });
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  context.diagnostic(`${points.length} writes, died at ${died}`);
  assert.deepEqual(failures, []);
  assert.ok(died > 0); // renewals come by the clock, so that the last writes may be missing now and then
}

async function inWorld<Value>(openWorld: () => Promise<World>, work: (world: World) => Promise<Value>): Promise<Value> {
  await using world = await openWorld();
  return await work(world);
}

/** Dies at the nth write. */
function at(position: number): () => boolean {
  let seen = 0;
  return () => seen++ === position;
}

/**
 * One backup, whose sidecar dies at the write that `dieAt` picks. Resolves to the writes that there were, and to what is
 * wrong in the end.
 */
async function oneBackup(world: World, dieAt: (point: Point) => boolean, afterwards: Afterwards) {
  const { namespace } = world;
  await world.settle();
  const story = ++stories;
  const points: Point[] = [];
  let diedAt: Point | undefined;
  const one = await namespace.start(`one-${story}`, {
    dieAt(point) {
      points.push(point);
      if (!dieAt(point)) return false;
      diedAt = point;
      return true;
    },
  });
  await one.begin();
  if ((await one.signal('pre')) !== undefined) await one.signal('post');
  await (afterwards === 'lost' ? one.lose() : one.kill());
  if (diedAt === undefined) return { points, diedAt, wrong: [] };

  const next = await namespace.start(`${afterwards === 'lost' ? 'two' : 'one'}-${story}`);
  next.dieClient();
  await next.begin();
  const isOver = async () => (await world.leases()).length === 0 && (await world.replicas()) === '2,1,0';
  const isQuiet = () => next.journal.runs('live').length === 0 && next.journal.holds().length === 0;
  const wrong: string[] = [];
  const isMended = async () => isQuiet() && (await isOver());
  await until(isMended, { what: 'all to be as it was', deadlineMs: MEND_MS, everyMs: 100 }).catch(async () => {
    const leases = (await world.leases()).join();
    wrong.push(`replicas ${await world.replicas()}, leases ${leases}, live ${next.journal.runs('live').length}`);
  });
  const told = await world.diary();
  if (told.includes('pre') && !told.includes('post')) wrong.push('post was owed, and did not run');
  wrong.push(...next.bugs.map((bug) => `bug: ${String(bug)}`));
  await next.kill();
  return { points, diedAt, wrong };
}
