import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseLabels } from '../../../src/core/labels.ts';
import { viewPlan } from '../../../src/core/plan-view.ts';
import type { Workload } from '../../../src/core/workload.ts';
import { aHook, aSituation, aWorkload, planOf } from '../../support/builders.ts';

const limits = { timeoutMs: 1000, operations: ['backup', 'restore'] };

function aDeployment(name: string, labels: Record<string, string> = {}): Workload {
  return aWorkload(name, { kind: 'deployment', key: `deployment/${name}`, name: `deployment/${name}`, labels });
}

function aPod(name: string, more: Partial<Workload> = {}): Workload {
  return aWorkload(name, {
    ...{ kind: 'pod', key: `pod/${name}`, containers: ['main', 'proxy'] },
    ...more,
  });
}

describe('pods', () => {
  it('are found by their labels, all of the selector', () => {
    const db = aPod('db-0', { labels: { app: 'db', tier: 'data' } });
    const cache = aPod('cache-0', { labels: { app: 'db', tier: 'cache' } });
    const container = aWorkload('db', { labels: { app: 'db' } });
    const plan = planOf(aSituation([db, cache, container], [aHook('10-dump', 'target=pod:app=db,tier!=cache')]));
    assert.deepEqual(
      new Set(plan.steps.map(({ call }) => call.place.kind === 'workload' && call.place.name)),
      new Set(['db-0']),
    );
  });

  it('are missed at plan time', () => {
    assert.throws(
      () => planOf(aSituation([aPod('db-0')], [aHook('10-dump', 'target=pod:app=db')])),
      /pod:app=db.*: no such pod/,
    );
  });

  it('have the container that the target names, or nothing runs', () => {
    const situation = (name: string) =>
      aSituation([aPod('db-0', { labels: { app: 'db' } })], [aHook('10-dump', `target=pod:app=db;container=${name}`)]);
    const { place } = planOf(situation('proxy')).steps[0]?.call ?? assert.fail();
    assert.deepEqual(place.kind === 'workload' && place.container, 'proxy');
    assert.throws(() => planOf(situation('absent')), /pod db-0 has no container absent/);
  });

  it('know no users: refused before anything runs', () => {
    const hook = aHook('10-dump', 'target=pod:app user=postgres');
    assert.throws(
      () => planOf(aSituation([aPod('db-0', { labels: { app: '' } })], [hook])),
      /user=postgres: Kubernetes has no such thing/,
    );
  });

  it('are held in their Deployment: a hook there excludes the hold of another run', () => {
    const pod = aPod('web-1', { labels: { app: 'web' }, partOf: 'deployment/web' });
    const plan = planOf(aSituation([pod, aDeployment('web')], [aHook('10-dump', 'target=pod:app=web')]));
    assert.deepEqual(plan.claims, [{ key: 'deployment/web', name: 'web-1', use: 'exec' }]);
  });

  it('cannot be the target of a held hook when their Deployment is held', () => {
    const pod = aPod('web-1', { labels: { app: 'web' }, partOf: 'deployment/web' });
    const held = aDeployment('web', { 'sidehook.hold': 'scale' });
    const hook = aHook('10-dump', 'target=pod:app=web while=held');
    assert.throws(() => planOf(aSituation([pod, held], [hook])), /its target is itself held/);
    const plan = planOf(aSituation([pod, held], [aHook('10-dump', 'target=pod:app=web')]));
    assert.deepEqual(viewPlan(plan, { operation: 'backup', job: 'default', state: 'pre' }).notes, []);
  });

  it('are spoken to by annotations, and named so in what is wrong with them', () => {
    assert.throws(
      () => parseLabels(aPod('db-0', { labels: { 'sidehook.backup.prä': 'x' } }), limits),
      /^OperationalError: pod db-0, annotation sidehook\.io\/backup\.prä: no such label/,
    );
    const { hook } = parseLabels(
      aPod('db-0', { labels: { 'sidehook.backup.pre': 'x', 'sidehook.container': 'proxy' } }),
      limits,
    );
    assert.deepEqual(hook?.target, { kind: 'workload', key: 'pod/db-0', name: 'db-0', container: 'proxy' });
  });

  it('and their owners are scaled, neither stopped nor paused; containers are never scaled', () => {
    const wish = (workload: Workload) => parseLabels(workload, limits).hold?.kind;
    assert.equal(wish(aDeployment('web', { 'sidehook.hold': 'scale' })), 'scale');
    assert.throws(() => wish(aDeployment('web', { 'sidehook.hold': 'stop' })), /expected scale, got "stop"/);
    assert.throws(() => wish(aWorkload('web', { labels: { 'sidehook.hold': 'scale' } })), /expected stop or pause/);
  });
});
