/** Others in the cluster who scale, evict, and take a token away. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { until } from '../support/until.ts';
import { SLOW_MS } from './namespace.ts';
import { aBudget, anAutoscaler } from './objects.ts';
import { openStack } from './stack.ts';

const SUITE_MS = 20 * 60_000;
const WAIT = { deadlineMs: SLOW_MS, everyMs: 250 };

describe('beside others who scale and evict', { timeout: SUITE_MS, concurrency: 2 }, () => {
  it('stays at zero under an autoscaler, which goes on from where it was', async () => {
    await using stack = await openStack('autoscaled');
    const have = (count: number) => async () => (await stack.replicas('deployment/web')) === count;
    await stack.apply(anAutoscaler('web', 3, 5));
    await until(have(3), { what: 'the autoscaler to make 3 of 2', ...WAIT });
    await stack.kubectl('rollout', 'status', 'deployment/web', `--timeout=${SLOW_MS}ms`);
    const { job, pod } = await stack.begin();
    const hasSeen = async () => {
      const { status } = await stack.get('horizontalpodautoscaler', 'web');
      return status.conditions?.some(({ reason }: { reason: string }) => reason === 'ScalingDisabled');
    };
    await until(hasSeen, { what: 'the autoscaler to find it at 0', ...WAIT });
    assert.equal(await stack.replicas('deployment/web'), 0);
    const said = await stack.kubectl('logs', pod, '--container', 'sidehook');
    assert.match(said, /autoscaler web leaves it alone/);
    await stack.goOn(pod);
    const { exitCode, out } = await stack.ended(job);
    assert.equal(exitCode, 0, out);
    await stack.isUp({ 'deployment/web': 3 });
    await stack.apply(anAutoscaler('web', 4, 5));
    await until(have(4), { what: 'the autoscaler to be at work again', ...WAIT });
  });

  it('says 65 when somebody scales up in the middle, and leaves that so', async () => {
    await using stack = await openStack('meddled');
    const { job, pod } = await stack.begin();
    await stack.kubectl('scale', 'deployment/web', '--replicas=1');
    await stack.goOn(pod);
    const { exitCode, out } = await stack.ended(job);
    assert.equal(exitCode, 65, out);
    assert.match(out, /deployment\/web/);
    await stack.isUp({ 'deployment/web': 1 });
  });

  it('holds what a budget keeps from being evicted, and is kept so itself', async () => {
    await using stack = await openStack('budget', { podLabels: { part: 'backup' } });
    await stack.apply(aBudget('web', { app: 'web' }, 2), aBudget('backup', { part: 'backup' }, 1));
    const isRefused = async (pod: string) => /disruption budget/.test((await stack.evict(pod)).all);
    const counts = (budget: string, healthy: number) => async () => {
      const { status } = await stack.get('poddisruptionbudget', budget);
      return status.currentHealthy === healthy;
    };
    await until(counts('web', 2), { what: 'the budget to count 2', ...WAIT });
    const [web] = await stack.list('pods', 'app=web');
    assert.ok(await isRefused(web.metadata.name));
    const { job, pod } = await stack.begin();
    await until(counts('backup', 1), { what: "the budget to count the backup's pod", ...WAIT });
    assert.ok(await isRefused(pod));
    await stack.goOn(pod);
    const { exitCode, out } = await stack.ended(job);
    assert.equal(exitCode, 0, out);
    await stack.isUp();
  });
});
