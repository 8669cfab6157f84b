import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { conflictOf } from '../../../src/core/claims.ts';
import { OperationalError } from '../../../src/core/errors.ts';
import { viewPlan } from '../../../src/core/plan-view.ts';
import { aDependency, aHeldWorkload, aHook, aSituation, aWorkload, planOf } from '../../support/builders.ts';

const refusal = (code: string, message: RegExp) => (error: unknown) =>
  error instanceof OperationalError && error.code === code && message.test(error.message);

describe('a plan', () => {
  it('says so when there is nothing to do', () => {
    assert.deepEqual(planOf(aSituation([])).notes, ['nothing to do: no hook and no hold for backup']);
  });

  it('orders holds by what depends on what, through workloads that are not held', () => {
    const middle = aWorkload('api', { dependsOn: [aDependency('db')] });
    const { holds } = planOf(aSituation([aHeldWorkload('db'), middle, aHeldWorkload('web', 'api')]));
    assert.deepEqual(holds.find(({ name }) => name === 'web')?.after, ['app/db/1']);
    assert.deepEqual(holds.find(({ name }) => name === 'db')?.after, []);
  });

  it('does not order by one-shot dependencies', () => {
    const web = aWorkload('web', {
      labels: { 'sidehook.hold': 'stop' },
      dependsOn: [aDependency('migrate', 'service_completed_successfully')],
    });
    const { holds } = planOf(aSituation([aHeldWorkload('migrate'), web]));
    assert.deepEqual(
      holds.map(({ after }) => after),
      [[], []],
    );
  });

  it('orders by sidehook.hold.after, which names containers or services', () => {
    const late = aWorkload('late', { labels: { 'sidehook.hold': 'stop', 'sidehook.hold.after': 'db' } });
    assert.deepEqual(planOf(aSituation([late, aHeldWorkload('db')])).holds[0]?.after, ['app/db/1']);
  });

  it('refuses a cycle and names its members', () => {
    const situation = aSituation([aHeldWorkload('a', 'b'), aHeldWorkload('b', 'a')]);
    assert.throws(() => planOf(situation), refusal('configuration', /a depends on b depends on a: a cycle/));
  });

  it('passes over what is wrong in another project, and names it', () => {
    const foreign = { foreign: true, project: 'other' };
    const down = aWorkload('down', { ...foreign, state: 'exited', labels: { 'sidehook.backup.pre': 'dump' } });
    const torn = aWorkload('torn', {
      ...foreign,
      labels: { 'sidehook.hold': 'stop', 'sidehook.backup.pre': 'x', 'sidehook.backup.pre.while': 'held' },
    });
    const ring = (name: string, after: string) =>
      aWorkload(name, { ...foreign, labels: { 'sidehook.hold': 'stop', 'sidehook.hold.after': after } });
    const plan = planOf(aSituation([down, torn, ring('a', 'b'), ring('b', 'a'), aHeldWorkload('db')]));
    assert.deepEqual(
      plan.holds.map(({ name }) => name),
      ['torn', 'db'],
    );
    assert.deepEqual(plan.steps, []);
    assert.match(plan.notes.join('\n'), /a depends on b depends on a: a cycle/);
    assert.match(plan.notes.join('\n'), /container down: passed over: .*down is exited/);
    assert.match(plan.notes.join('\n'), /container torn: passed over: .*its target is itself held/);

    const ours = aWorkload('down', { state: 'exited', labels: { 'sidehook.backup.pre': 'dump' } });
    assert.throws(() => planOf(aSituation([ours])), refusal('not-executable', /down is exited/));
  });

  it('tells of a name in sidehook.hold.after that nothing has', () => {
    const late = aWorkload('late', { labels: { 'sidehook.hold': 'stop', 'sidehook.hold.after': 'db, databse' } });
    const { holds, notes } = planOf(aSituation([late, aHeldWorkload('db')]));
    assert.deepEqual(holds[0]?.after, ['app/db/1']);
    assert.deepEqual(notes, [
      'container late, label sidehook.hold.after: nothing here is called databse, so it orders nothing',
    ]);
  });

  it('refuses a list that is empty, and would mean never', () => {
    const never = aWorkload('db', { labels: { 'sidehook.hold': 'stop', 'sidehook.hold.on': ' , ' } });
    assert.throws(() => planOf(aSituation([never])), refusal('configuration', /sidehook\.hold\.on: expected a list/));
  });

  it('holds every dependency before nothing that needs it: no held one is after itself, for any graph without cycles', () => {
    const edges = fc.array(fc.tuple(fc.nat(9), fc.nat(9)), { maxLength: 30 });
    fc.assert(
      fc.property(edges, fc.uniqueArray(fc.nat(9)), (pairs, heldIndexes) => {
        const workloads = Array.from({ length: 10 }, (_, index) => {
          const later = pairs.filter(([from, to]) => from === index && to > index).map(([, to]) => `w${to}`);
          return heldIndexes.includes(index)
            ? aHeldWorkload(`w${index}`, ...later)
            : aWorkload(`w${index}`, { dependsOn: later.map((name) => aDependency(name)) });
        });
        const { holds } = planOf(aSituation(workloads));
        assert.equal(holds.length, heldIndexes.length);
        const order = viewPlan(planOf(aSituation(workloads)), {
          operation: 'backup',
          job: 'default',
          state: 'pre',
        }).steps;
        for (const { name, after } of holds) {
          const own = order.findIndex(({ where }) => where === name);
          for (const key of after) assert.ok(own < order.findIndex(({ where }) => key === `app/${where}/1`));
        }
      }),
    );
  });

  it('names a running workload that loses what it talks to', () => {
    const web = aWorkload('web', { dependsOn: [aDependency('db')] });
    assert.ok(
      planOf(aSituation([aHeldWorkload('db'), web])).notes.includes(
        'web depends on db and is not held: it loses what it talks to',
      ),
    );
  });

  it('refuses to hold what may never be held, and passes it over in a foreign project', () => {
    const self = aWorkload('me', { labels: { 'sidehook.hold': 'stop' }, unholdable: 'it is the sidecar itself' });
    assert.throws(
      () => planOf(aSituation([self])),
      refusal('configuration', /hold of me: refused: it is the sidecar itself/),
    );
    const { holds, notes } = planOf(aSituation([{ ...self, foreign: true }]));
    assert.deepEqual([holds.length, notes.some((note) => note.includes('passed over'))], [0, true]);
  });

  it('refuses to hold anything where P1 could not be kept', () => {
    const situation = aSituation([aHeldWorkload('db')]);
    const view = { ...situation.view, unholdable: 'state.dir is no mount' };
    assert.throws(
      () => planOf({ ...situation, view }),
      refusal('configuration', /hold of db: refused: state.dir is no mount/),
    );
  });

  it('plans nothing while a client can write what is run', () => {
    const situation = aSituation([]);
    const view = { ...situation.view, exposed: 'hooks.dir: it lies where client backup can write' };
    assert.throws(
      () => planOf({ ...situation, view }),
      refusal('configuration', /hooks.dir: it lies where client backup can write/),
    );
  });

  it('refuses a held hook whose target is itself held', () => {
    const situation = aSituation([aHeldWorkload('db')], [aHook('dump', 'target=service:db while=held')]);
    assert.throws(() => planOf(situation), refusal('configuration', /while=held, but its target is itself held/));
  });

  it('resolves every target before anything runs: a misspelt service stops nothing', () => {
    const situation = aSituation([aHeldWorkload('db')], [aHook('later', 'target=service:bd on=backup.post')]);
    assert.throws(() => planOf(situation), refusal('configuration', /hook later \(service:bd\): no such container/));
  });

  it('refuses a hook whose target does not run, unless match=any', () => {
    const stopped = aWorkload('db', { state: 'exited' });
    const strict = aSituation([stopped], [aHook('dump', 'target=service:db')]);
    assert.throws(() => planOf(strict), refusal('not-executable', /container db is exited, not running/));
    const any = planOf(aSituation([stopped], [aHook('dump', 'target=service:db match=any')]));
    assert.deepEqual(any.steps, []);
    assert.ok(any.notes.some((note) => /container db is exited: passed over/.test(note)));
  });

  it('runs in each container of a service, and with match=one only where there is exactly one', () => {
    const replicas = [1, 2].map((number) =>
      aWorkload(`db-${number}`, { key: `app/db/${number}`, service: 'db', number }),
    );
    const all = planOf(aSituation(replicas, [aHook('dump', 'target=service:db on=backup.pre')]));
    assert.equal(all.steps.length, 2);
    const one = aSituation(replicas, [aHook('dump', 'target=service:db match=one')]);
    assert.throws(() => planOf(one), refusal('configuration', /match=one, but 2 match: db-1, db-2/));
  });

  it('never targets what compose run made', () => {
    const workloads = [aWorkload('db'), aWorkload('db-run-1', { key: 'app/db/run', service: 'db', oneOff: true })];
    const { steps } = planOf(aSituation(workloads, [aHook('dump', 'target=service:db on=backup.pre')]));
    assert.deepEqual(
      steps.map(({ call }) => call.place),
      [{ kind: 'workload', key: 'app/db/1', instance: 'id-db', name: 'db', target: 'service:db' }],
    );
  });

  it('takes the hooks of its job alone', () => {
    const hooks = [aHook('a', 'job=nightly'), aHook('b', 'job=weekly,nightly'), aHook('c')];
    const names = (job: string) =>
      new Set(planOf(aSituation([], hooks), 'backup', job).steps.map(({ call }) => call.name));
    assert.deepEqual([...names('nightly')], ['a', 'b', 'c']);
    assert.deepEqual([...names('default')], ['c']);
  });

  it('advises a dump that runs before the writers are held to run while=held', () => {
    const plan = planOf(aSituation([aHeldWorkload('app'), aWorkload('db')], [aHook('dump', 'target=service:db')]));
    const { notes } = viewPlan(plan, { operation: 'backup', job: 'default', state: 'pre' });
    assert.ok(notes.some((note) => /hook dump \(db\) runs before app is held/.test(note)));
  });
});

describe('labels', () => {
  const bad: readonly [labels: Record<string, string>, message: RegExp][] = [
    [{ 'sidehook.hold': 'freeze' }, /container db, label sidehook.hold: expected stop or pause, got "freeze"/],
    [{ 'sidehook.bakup.pre': 'x' }, /label sidehook.bakup.pre: operation bakup is not allowed/],
    [{ 'sidehook.backup.pre': '["unclosed' }, /expected a JSON array of strings/],
    [{ 'sidehook.backup.pre': '[1]' }, /expected a JSON array of strings/],
    [{ 'sidehook.backup.pre': ' ' }, /expected a command/],
    [{ 'sidehook.backup.pre.user': 'x' }, /has no command: sidehook.backup.pre is missing/],
    [{ 'sidehook.hold.on': 'backup' }, /needs sidehook.hold beside it/],
    [{ 'sidehook.backup.captured': 'x' }, /not supported/],
    [{ 'sidehook.typo': 'x' }, /label sidehook.typo: no such label/],
  ];
  for (const [labels, message] of bad) {
    it(`that are wrong name the container and the label: ${JSON.stringify(labels)}`, () => {
      assert.throws(() => aSituation([aWorkload('db', { labels })]), refusal('configuration', message));
    });
  }

  it('make one hook: its post is owed once its pre was started', () => {
    const labels = {
      'sidehook.backup.pre': 'lock',
      'sidehook.backup.post': '["unlock","a b"]',
      'sidehook.backup.post.timeout': '3s',
    };
    const { steps } = planOf(aSituation([aWorkload('db', { labels })]));
    assert.deepEqual(new Set(steps.map(({ owner }) => owner)).size, 1);
    assert.deepEqual(steps[1]?.call.program, { kind: 'argv', argv: ['unlock', 'a b'] });
    assert.equal(steps[1]?.call.settings.timeoutMs, 3000);
  });
});

describe('claims', () => {
  const claim = (use: 'hold' | 'exec') => ({ key: 'k', name: 'k', use });
  const of = (use: 'hold' | 'exec', operation = 'backup', kept = false) => ({
    ...claim(use),
    runId: 'r',
    job: 'other',
    operation,
    kept,
  });
  const table: readonly [ours: 'hold' | 'exec', operation: string, other: ReturnType<typeof of>, conflicts: boolean][] =
    [
      ['hold', 'backup', of('hold'), false],
      ['exec', 'backup', of('exec'), false],
      ['hold', 'backup', of('exec'), true],
      ['exec', 'backup', of('hold'), true],
      ['hold', 'restore', of('hold'), true],
      ['hold', 'backup', of('hold', 'restore'), true],
      ['hold', 'backup', of('hold', 'restore', true), true],
    ];
  for (const [ours, operation, other, conflicts] of table) {
    it(`${operation} ${ours} against ${other.operation} ${other.use}: ${conflicts ? 'exclude one another' : 'share'}`, () => {
      assert.equal(conflictOf([claim(ours)], { job: 'mine', operation }, [other]) !== undefined, conflicts);
    });
  }

  it('let a restore of the same job take over what a failed one keeps', () => {
    assert.equal(
      conflictOf([claim('hold')], { job: 'other', operation: 'restore' }, [of('hold', 'restore', true)]),
      undefined,
    );
  });
});
