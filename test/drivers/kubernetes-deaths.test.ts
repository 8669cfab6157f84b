/** The fault laws of holds by scale: the sidecar dies before and after each of its writes, to the journal and the API. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { openApiServer } from '../support/api-server.ts';
import { until } from '../support/until.ts';
import { openNamespace, type Point } from './kubernetes-sidehook.ts';

const HOLD = { 'sidehook.io/hold': 'scale' };
const AT_ONCE = 3;
/** All of them take some minutes: DEATHS_EVERY=1. */
const EVERY = Number(process.env.DEATHS_EVERY ?? 8);
const LONG_MS = 20 * 60_000;

/** `restarted`: with its journal; `lost`: without, and another sidehook is there. The client dies with it, or lives. */
type Afterwards = 'restarted' | 'lost';

/**
 * One backup, whose sidecar dies at the write that `dieAt` picks. Resolves to the writes that there were, and to what is
 * wrong in the end.
 */
async function oneBackup(dieAt: (point: Point) => boolean, afterwards: Afterwards) {
  await using server = await openApiServer();
  await using namespace = await openNamespace(server);
  const diary = join(namespace.dir, 'diary');
  server.addController('deployments', 'web', {
    replicas: 2,
    annotations: { ...HOLD, 'sidehook.io/hold.after': 'api' },
  });
  server.addController('deployments', 'api', { replicas: 1, annotations: HOLD });
  server.addController('deployments', 'idle', { replicas: 0, annotations: HOLD });
  const hooks = { 'sidehook.io/backup.pre': `echo pre >>${diary}`, 'sidehook.io/backup.post': `echo post >>${diary}` };
  server.addController('statefulsets', 'db', { replicas: 1, annotations: hooks });
  const ready = (): unknown[] => server.all('pods').filter(({ status }) => status.phase === 'Running');
  await until(() => ready().length === 4, { what: 'the pods to be ready', deadlineMs: 120_000 });

  const points: Point[] = [];
  const one = await namespace.start('one', {
    dieAt(point) {
      points.push(point);
      return dieAt(point);
    },
  });
  await one.begin();
  if ((await one.signal('pre')) !== undefined) await one.signal('post');
  const hasDied = one.hasDied();
  await (afterwards === 'lost' ? one.lose() : one.kill());
  if (!hasDied) return { points, hasDied, wrong: [] };

  const next = await namespace.start(afterwards === 'lost' ? 'two' : 'one');
  next.dieClient();
  await next.begin();
  const replicas = () => ['web', 'api', 'idle'].map((name) => server.get('deployments', name)?.spec.replicas).join();
  const isOver = () => server.all('leases').length === 0 && replicas() === '2,1,0';
  const isQuiet = () => next.journal.runs('live').length === 0 && next.journal.holds().length === 0;
  const wrong: string[] = [];
  await until(() => isOver() && isQuiet(), { what: 'all to be as it was', deadlineMs: 180_000 }).catch(() => {
    const leases = server.all('leases').map(({ metadata }) => metadata.name);
    wrong.push(`replicas ${replicas()}, leases ${leases.join()}, live ${next.journal.runs('live').length}`);
  });
  const told = (await readFile(diary, 'utf8').catch(() => '')).split('\n');
  if (told.includes('pre') && !told.includes('post')) wrong.push('post was owed, and did not run');
  wrong.push(...next.bugs.map((bug) => `bug: ${String(bug)}`));
  await next.kill();
  return { points, hasDied, wrong };
}

/** Dies at the nth write. */
function at(position: number): (point: Point) => boolean {
  let seen = 0;
  return () => seen++ === position;
}

describe('a sidecar on Kubernetes that dies at any write of a backup', { timeout: LONG_MS }, () => {
  for (const afterwards of ['restarted', 'lost'] as const) {
    it(`has all as it was, when it is ${afterwards}`, { timeout: LONG_MS }, async (context) => {
      const { points } = await oneBackup(() => false, afterwards);
      assert.ok(points.length > 60, `only ${points.length} writes`);
      const positions = points.keys().filter((position) => position % EVERY === 0);
      const failures: string[] = [];
      let died = 0;
      const work = async (): Promise<void> => {
        for (const position of positions) {
          const { wrong, hasDied } = await oneBackup(at(position), afterwards);
          if (hasDied) died += 1;
          failures.push(...wrong.map((what) => `${position} (${points[position]}): ${what}`));
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, work));
      context.diagnostic(`${points.length} writes, died at ${died}`);
      assert.deepEqual(failures, []);
      assert.ok(died > 0); // renewals come by the clock, so that the last writes may be missing now and then
    });
  }
});
