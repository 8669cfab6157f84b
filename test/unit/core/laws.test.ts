import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type Claimed, conflictOf } from '../../../src/core/claims.ts';
import { formatDuration } from '../../../src/core/duration.ts';
import { OperationalError } from '../../../src/core/errors.ts';
import { parseHookFile } from '../../../src/core/header.ts';
import type { Hook } from '../../../src/core/hook.ts';
import { parseLabels } from '../../../src/core/labels.ts';
import type { Claim } from '../../../src/core/plan.ts';
import type { RunRecord, StepRecord } from '../../../src/core/record.ts';
import { parseRequest, type Request } from '../../../src/core/request.ts';
import { RUN_OUTCOMES } from '../../../src/core/result.ts';
import { makeUnwinding } from '../../../src/core/unwinding.ts';
import { aDependency, aHeldWorkload, aHook, aSituation, aWorkload, planOf } from '../../support/builders.ts';

/** What must be so whatever comes in. A failure prints the seed and the smallest example. */

const LIMITS = { timeoutMs: 1000, operations: ['backup', 'restore', 'prune'] };

/** What a parser makes of it; undefined: it refuses, as it should. Anything else that it throws is a bug. */
function unlessRefused<Value>(parse: () => Value): Value | undefined {
  try {
    return parse();
  } catch (error) {
    if (error instanceof OperationalError) return undefined;
    throw error;
  }
}

const parseText = (text: string): Hook => parseHookFile({ name: 'x', path: '/x', text, head: text }, LIMITS);

const word = fc.stringMatching(/^[a-z0-9][a-z0-9._-]{0,11}$/);
const term = fc.integer({ min: 1, max: 2_000_000_000 });
const listOf = (one: fc.Arbitrary<string>) => fc.uniqueArray(one, { minLength: 1, maxLength: 3 });
/** A header as its keys, in any order and on any lines. */
const header = fc.record(
  {
    target: fc.oneof(
      word.map((name) => `service:${name}`),
      word.map((name) => `container:${name}`),
      fc.constant('host'),
    ),
    on: listOf(fc.constantFrom('backup.pre', 'backup.post', 'restore.*', '*.inspect', 'prune.pre')).map(String),
    outcome: listOf(fc.constantFrom(...RUN_OUTCOMES)).map(String),
    while: fc.constantFrom('running', 'held'),
    job: listOf(word).map(String),
    timeout: term.map(formatDuration),
    'on-error': fc.constantFrom('abort', 'continue'),
    retries: fc.nat(999).map(String),
    'retry-delay': term.map(formatDuration),
    user: word,
    workdir: word.map((name) => `/${name}`),
    match: fc.constantFrom('all', 'one', 'any'),
  },
  { requiredKeys: [] },
);
const layout = fc.record({
  sign: fc.constantFrom('#', '##', '//', '--', ';'),
  perLine: fc.integer({ min: 1, max: 4 }),
});

function write(keys: Readonly<Record<string, string>>, { sign, perLine }: { sign: string; perLine: number }): string {
  const words = Object.entries(keys).map(([key, value]) => `${key}=${value}`);
  const lines = words.map((_, at) => words.slice(at, at + perLine)).filter((_, at) => at % perLine === 0);
  return ['#!/bin/sh', ...lines.map((line) => `${sign} sidehook: ${line.join('  ')}`), 'true', ''].join('\n');
}

describe('laws of headers', () => {
  it('what is written is what is read', () => {
    fc.assert(
      fc.property(header, layout, (keys, how) => {
        const { target, jobs, actions } = parseText(write(keys, how));
        const settings = actions[0]?.settings;
        const [kind, name] = (keys.target ?? 'host').split(':');
        assert.equal(target.kind, kind);
        assert.ok(name === undefined || Object.values(target).includes(name));
        assert.deepEqual(jobs, keys.job?.split(','));
        if (keys.on !== undefined)
          assert.deepEqual(
            actions.map(({ operation, state }) => `${operation}.${state}`),
            keys.on.split(','),
          );
        assert.deepEqual(settings?.outcomes, keys.outcome?.split(','));
        assert.equal(settings?.while, keys.while ?? 'running');
        assert.equal(settings?.onError, keys['on-error'] ?? 'abort');
        assert.equal(settings?.match, keys.match ?? 'all');
        assert.equal(settings?.retries, Number(keys.retries ?? 0));
        assert.equal(formatDuration(settings?.timeoutMs ?? 0), keys.timeout ?? '1s');
        assert.deepEqual([settings?.user, settings?.workdir], [keys.user, keys.workdir]);
      }),
    );
  });

  it('one word that is wrong makes all of it refused, wherever it stands', () => {
    const wrong = fc.constantFrom(
      'colour=red',
      'while=hold',
      'timeout=3',
      'nonsense',
      'on=bakcup.pre',
      'job=,',
      'session=yes',
    );
    fc.assert(
      fc.property(header, layout, wrong, fc.nat(100), (keys, how, word, place) => {
        const name = word.split('=')[0] ?? '';
        const others = Object.entries(keys).filter(([key]) => key !== name);
        const at = place % (others.length + 1);
        const all = [...others.slice(0, at), [word, ''] as const, ...others.slice(at)];
        const text = write(Object.fromEntries(all), how).replace(`${word}=`, word);
        assert.equal(
          unlessRefused(() => parseText(text)),
          undefined,
          text,
        );
      }),
    );
  });

  it('any text is a hook or is refused', () => {
    const lines = fc.array(
      fc.oneof(
        fc.string(),
        fc.string().map((rest) => `# sidehook: ${rest}`),
      ),
      { maxLength: 30 },
    );
    fc.assert(fc.property(lines, (text) => void unlessRefused(() => parseText(text.join('\n')))));
  });
});

describe('laws of labels', () => {
  const name = fc.stringMatching(/^(backup|restore|hold|job)(\.(pre|post|on|after|max|timeout|user)){0,2}$/);
  const any = fc.dictionary(name, fc.oneof(fc.string(), fc.constantFrom('stop', 'backup', '3m')), { maxKeys: 6 });
  /** Right ones, none of which says what silence says. */
  const right = fc.record(
    {
      ...{ hold: fc.constantFrom('stop', 'pause'), 'hold.on': fc.constantFrom('backup', 'restore,prune') },
      ...{ 'hold.max': fc.constant('3m'), 'hold.timeout': fc.constant('4m'), 'hold.after': word },
      ...{ 'backup.pre': word, 'backup.pre.timeout': fc.constant('5m'), 'backup.pre.user': word },
      ...{ 'backup.pre.while': fc.constant('held'), 'backup.pre.match': fc.constant('any'), 'restore.post': word },
      ...{ 'restore.post.outcome': fc.constant('failure'), 'restore.post.on-error': fc.constant('continue') },
    },
    { requiredKeys: [] },
  );
  const wishesOf = (found: Readonly<Record<string, string | undefined>>) => {
    const labels = Object.entries(found).map(([key, value]): [string, string] => [`sidehook.${key}`, value ?? '']);
    return unlessRefused(() => parseLabels(aWorkload('db', { labels: Object.fromEntries(labels) }), LIMITS));
  };

  it('any labels are wishes, or are refused', () => {
    fc.assert(fc.property(any, (labels) => void wishesOf(labels)));
  });

  it('each has its effect, or all are refused', () => {
    fc.assert(
      fc.property(right, (labels) => {
        const wishes = wishesOf(labels);
        if (wishes === undefined) return;
        for (const label of Object.keys(labels) as (keyof typeof labels)[]) {
          const { [label]: _, ...rest } = labels;
          assert.notDeepEqual(wishesOf(rest), wishes, label);
        }
      }),
    );
  });
});

describe('laws of requests', () => {
  const limits = { client: 'default', operations: ['backup', 'restore'], unattendedMs: 1000, longestLeaseMs: 5000 };

  it('what is accepted is accepted again, and means the same', () => {
    const id = fc.stringMatching(/^[a-zA-Z0-9][\w.-]{0,79}$/);
    const raw = fc.record(
      {
        ...{ version: fc.constantFrom(1, '1'), id, operation: fc.constantFrom('backup', 'restore') },
        ...{ state: fc.constantFrom('pre', 'inspect', 'post'), job: word, run: id },
        params: fc.dictionary(fc.stringMatching(/^[A-Za-z][A-Za-z0-9_]{0,9}$/), fc.string({ maxLength: 20 }), {
          maxKeys: 4,
        }),
        ...{ wait: term.map(formatDuration), lease: fc.oneof(fc.constant('held'), term.map(formatDuration)) },
        ...{ outcome: fc.constantFrom('success', 'failure'), status: fc.nat(300) },
      },
      { requiredKeys: ['version', 'id', 'operation', 'state'] },
    );
    fc.assert(
      fc.property(raw, (message) => {
        const request = unlessRefused(() => parseRequest(message, limits));
        if (request === undefined) return;
        assert.deepEqual(parseRequest(rawOf(request), limits), request);
        assert.ok(request.lease === 'held' || (request.lease > 0 && request.lease <= limits.longestLeaseMs));
      }),
    );
  });

  /** A request as its client would have written it. */
  function rawOf({ waitMs, lease, runId, client: _, ...rest }: Request): Record<string, unknown> {
    const written = lease === 'held' ? lease : formatDuration(lease);
    return {
      ...rest,
      version: 1,
      wait: formatDuration(waitMs),
      lease: written,
      ...(runId === undefined ? {} : { run: runId }),
    };
  }
});

describe('laws of order', () => {
  it('a plan is in order, or names a cycle that is one', () => {
    const edges = fc.array(fc.tuple(fc.nat(6), fc.nat(6)), { maxLength: 12 });
    fc.assert(
      fc.property(edges, fc.uniqueArray(fc.nat(6)), (pairs, heldIndexes) => {
        const needs = (from: number): number[] =>
          pairs.filter(([one, to]) => one === from && to !== from).map(([, to]) => to);
        const workloads = Array.from({ length: 7 }, (_, index) => {
          const names = needs(index).map((to) => `w${to}`);
          if (heldIndexes.includes(index)) return aHeldWorkload(`w${index}`, ...names);
          return aWorkload(`w${index}`, { dependsOn: names.map((name) => aDependency(name)) });
        });
        const reach = (from: number, seen = new Set<number>()): Set<number> => {
          for (const to of needs(from)) if (!seen.has(to)) reach(to, seen.add(to));
          return seen;
        };
        const isCyclic = heldIndexes.some((index) => reach(index).has(index));
        try {
          const { holds } = planOf(aSituation(workloads));
          assert.equal(isCyclic, false);
          for (const { key, after } of holds)
            for (const other of after) assert.ok(reach(indexOf(key)).has(indexOf(other)), `${key} after ${other}`);
        } catch (error) {
          if (!(error instanceof OperationalError)) throw error;
          const members = [...(/order of holds: (.*): a cycle/.exec(error.message)?.[1]?.matchAll(/w(\d)/g) ?? [])].map(
            Number1,
          );
          assert.ok(isCyclic && members.length > 1 && members[0] === members.at(-1), error.message);
          for (const [at, member] of members.slice(0, -1).entries())
            assert.ok(reach(member).has(members[at + 1] ?? -1));
        }
      }),
    );
  });

  const indexOf = (key: string): number => Number(/w(\d)/.exec(key)?.[1]);
  const Number1 = ([, digit]: RegExpMatchArray): number => Number(digit);
});

describe('laws of claims', () => {
  const claim = fc.record({ key: fc.constantFrom('db', 'app', 'web'), use: fc.constantFrom('hold', 'exec') });
  const claims = fc
    .array(claim, { maxLength: 4 })
    .map((all) => all.map((one): Claim => ({ ...one, name: one.key }) as Claim));
  const asked = fc.record({ job: fc.constantFrom('a', 'b'), operation: fc.constantFrom('backup', 'restore') });
  type Run = { readonly job: string; readonly operation: string };
  const taken = (run: Run, all: readonly Claim[]): Claimed[] =>
    all.map((one) => ({ ...one, ...run, runId: 'r', kept: false }));
  const excludes = (one: Run, its: readonly Claim[], other: Run, others: readonly Claim[]): boolean =>
    conflictOf(its, one, taken(other, others)) !== undefined;

  it('whoever comes first, two runs exclude one another or do not', () => {
    fc.assert(
      fc.property(asked, claims, asked, claims, (one, its, other, others) => {
        assert.equal(excludes(one, its, other, others), excludes(other, others, one, its));
      }),
    );
  });

  it('holds of backups share, a restore shares with nobody, and what nobody else has, anybody may', () => {
    fc.assert(
      fc.property(asked, claims, asked, claims, (one, its, other, others) => {
        const isShared = its.some(({ key }) => others.some((theirs) => theirs.key === key));
        const isRestore = one.operation === 'restore' || other.operation === 'restore';
        const areHolds = [...its, ...others].every(({ use }) => use === 'hold');
        if (!isShared) assert.equal(excludes(one, its, other, others), false);
        else if (isRestore) assert.equal(excludes(one, its, other, others), true);
        else if (areHolds) assert.equal(excludes(one, its, other, others), false);
      }),
    );
  });
});

describe('laws of unwinding', () => {
  const hooks = fc.array(fc.record({ held: fc.boolean(), ended: fc.boolean(), container: fc.boolean() }), {
    maxLength: 8,
  });

  it('is the mirror image of what was started, and of nothing else', () => {
    fc.assert(
      fc.property(hooks, fc.nat(8), fc.constantFrom(...RUN_OUTCOMES), (all, started, outcome) => {
        const files = all.map(({ held, container }, index) =>
          aHook(
            `h${index}`,
            `on=backup.pre,backup.post while=${held ? 'held' : 'running'}${container ? ' target=service:db' : ''}`,
          ),
        );
        const { steps } = planOf(aSituation([aWorkload('db')], files));
        const records = steps.map((step): StepRecord => {
          const index = Number(step.call.name.slice(1));
          if (step.call.state === 'pre') return { ...step, status: index < started ? 'started' : 'planned' };
          return { ...step, status: all[index]?.ended ? 'ended' : 'planned' };
        });
        const { held, running } = makeUnwinding({ ...A_RUN, outcome }, records, 'keep');
        const expected = (isHeld: boolean) =>
          all
            .flatMap((one, index) => (one.held === isHeld && index < started && !one.ended ? [`h${index}`] : []))
            .toReversed();
        assert.deepEqual(
          held.map(({ call }) => call.name),
          expected(true),
        );
        assert.deepEqual(
          running.map(({ call }) => call.name),
          expected(false),
        );
      }),
    );
  });
});

const A_RUN: RunRecord = {
  ...{ id: 'r', job: 'default', client: 'default', operation: 'backup', params: {}, phase: 'post', lease: 'held' },
  ...{ openedAt: '', requestId: 'x', leaseRef: 'x', commandStarted: false, distrust: [] },
};
