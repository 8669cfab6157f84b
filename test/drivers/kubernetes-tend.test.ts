/** Who is lost, and what becomes of what they left: the driver's ledger alone, by its own clock. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { Ledger } from '../../src/core/ledger.ts';
import type { Driver } from '../../src/core/ports.ts';
import type { RunRecord } from '../../src/core/record.ts';
import { until } from '../support/until.ts';
import { openKubernetesBench } from './kubernetes-bench.ts';

const PACE = { durationMs: 300, renewMs: 100 };
const nothing = () => undefined;

const aRun = (job = 'default'): RunRecord => ({
  ...{ id: `run-${job}`, job, client: 'default', operation: 'backup', params: {}, lease: 'held', leaseRef: 'x' },
  ...{ requestId: 'x', clients: [], phase: 'pre', openedAt: '', commandStarted: false, distrust: [] },
});
const aPlan = (key: string) => ({
  ...{ steps: [], holds: [], left: [], notes: [] },
  claims: [{ key, name: key, use: 'hold' as const }],
});

function ledgerOf(driver: Driver): Ledger {
  return driver.ledger ?? assert.fail('no ledger');
}

/** The clock has to go on for this: nothing else is waited for. */
async function passes(ms: number): Promise<void> {
  const began = performance.now();
  await until(() => performance.now() - began > ms, { what: 'time to pass' });
}

describe('the Kubernetes ledger', () => {
  it('takes nobody for lost who could not renew while the API was away', async ({ signal }) => {
    await using bench = await openKubernetesBench();
    await using one = bench.open('one', { pace: PACE });
    await using two = bench.open('two', { pace: PACE });
    await ledgerOf(one).open(aRun(), aPlan('deployment/db'), signal);
    assert.equal((await ledgerOf(two).tend(nothing, signal)).undecided, 1);
    bench.server.setDown(true);
    await assert.rejects(ledgerOf(two).tend(nothing, signal), { code: 'engine-unavailable' });
    await passes(PACE.durationMs * 2);
    bench.server.setDown(false);
    const { runs, undecided } = await ledgerOf(two).tend(nothing, signal);
    assert.deepEqual([runs.length, undecided], [0, 1]);
    const found = await until(async () => (await ledgerOf(two).tend(nothing, signal)).runs[0], {
      what: 'one that renews nothing at all to be lost',
    });
    assert.equal(found.run.id, 'run-default');
  });

  it('tells of a hold that it took over until somebody has taken it up', async ({ signal }) => {
    await using bench = await openKubernetesBench(2);
    await using one = bench.open('one', { pace: PACE });
    await one.hold(bench.workload, 'scale', 10_000, signal); // and is never seen again
    await using two = bench.open('two', { pace: PACE });
    const holdsOf = async () => (await ledgerOf(two).tend(nothing, signal)).holds;
    await until(async () => (await holdsOf()).length === 1, { what: 'the hold to be taken over' });
    const [again] = await holdsOf(); // whoever was told first may have been cut off
    assert.equal(again?.ref.key, 'deployment/db');
    await two.release(bench.workload, 'scale', signal);
    assert.deepEqual(await holdsOf(), []);
    assert.equal(bench.server.get('deployments', 'db')?.spec.replicas, 2);
  });

  it('leaves no Lease behind that was renewed in the middle of its release', async ({ signal }) => {
    await using bench = await openKubernetesBench();
    await bench.driver.hold(bench.workload, 'scale', 10_000, signal);
    let isRenewed = false;
    bench.server.state.script = ({ method, path }, when) => {
      if (when !== 'before' || method !== 'DELETE' || !path.includes('/leases/') || isRenewed) return undefined;
      isRenewed = true;
      bench.server.put('leases', bench.server.get('leases', 'sidehook-hold-deployment-db') ?? assert.fail());
      return undefined;
    };
    await bench.driver.release(bench.workload, 'scale', signal);
    assert.ok(isRenewed);
    assert.deepEqual(bench.server.all('leases'), []);
  });

  it('has who is still in a hold renew it, when another lets go', async ({ signal }) => {
    await using bench = await openKubernetesBench();
    await using one = bench.open('one', { pace: PACE });
    await using two = bench.open('two', { pace: PACE });
    await one.hold(bench.workload, 'scale', 10_000, signal);
    const holder = () => bench.server.get('leases', 'sidehook-hold-deployment-db')?.spec.holderIdentity;
    const first = holder();
    await two.hold(bench.workload, 'scale', 10_000, signal);
    assert.notEqual(holder(), first);
    await two.release(bench.workload, 'scale', signal);
    assert.equal(holder(), first);
    assert.equal(bench.server.get('deployments', 'db')?.spec.replicas, 0);
    await one.release(bench.workload, 'scale', signal);
    assert.equal(bench.server.get('deployments', 'db')?.spec.replicas, 1);
  });

  it('finds a name for itself again where a crash left none', async ({ signal }) => {
    await using bench = await openKubernetesBench();
    const holder = () => bench.server.get('leases', 'sidehook-hold-deployment-db')?.spec.holderIdentity;
    await using first = bench.open('crashed');
    await first.hold(bench.workload, 'scale', 10_000, signal);
    assert.notEqual(holder(), '');
    await first.release(bench.workload, 'scale', signal);
    await writeFile(join(bench.dir, 'crashed', 'identity'), '');
    await using again = bench.open('crashed');
    await again.hold(bench.workload, 'scale', 10_000, signal);
    assert.match(holder(), /_[0-9a-f]{12}$/);
  });
});
