import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { OperationalError } from '../../../src/core/errors.ts';
import { parseRequest } from '../../../src/core/request.ts';

const limits = { client: 'default', operations: ['backup', 'restore'], unattendedMs: 1000, longestLeaseMs: 60_000 };
const good = { version: 1, id: 'a.1', operation: 'backup', state: 'pre' };

function refusalOf(raw: unknown): OperationalError {
  try {
    parseRequest(raw, limits);
  } catch (error) {
    if (error instanceof OperationalError) return error;
    throw error;
  }
  throw new Error('it was taken');
}

describe('parseRequest', () => {
  it('fills in what was not said', () => {
    assert.deepEqual(parseRequest(good, limits), {
      ...{ id: 'a.1', client: 'default', operation: 'backup', state: 'pre', job: 'default' },
      ...{ params: {}, waitMs: 0, lease: 1000, outcome: 'success' },
    });
  });

  it('reads everything that can be said', () => {
    const said = {
      job: 'db',
      wait: '1h',
      lease: 'held',
      run: 'r-1',
      outcome: 'failure',
      status: '3',
      params: { tag: 'x y' },
    };
    const { job, waitMs, lease, runId, outcome, status, params } = parseRequest({ ...good, ...said }, limits);
    assert.deepEqual([job, waitMs, lease, runId, outcome, status], ['db', 3_600_000, 'held', 'r-1', 'failure', 3]);
    assert.deepEqual(params, { TAG: 'x y' });
  });

  it('calls a non-zero status a failure when no outcome is said', () => {
    assert.equal(parseRequest({ ...good, state: 'post', status: 1 }, limits).outcome, 'failure');
  });

  it('shortens a lease that is longer than any hold', () => {
    assert.equal(parseRequest({ ...good, lease: '10h' }, limits).lease, 60_000);
  });

  const bad: readonly [what: string, raw: unknown, code: string, message: RegExp][] = [
    ['no object', 'backup', 'invalid-request', /^request: expected an object, got "backup"$/],
    [
      'an unknown operation',
      { ...good, operation: 'bakup' },
      'refused',
      /operation bakup: not allowed here; allowed are backup, restore/,
    ],
    ['an operation that is a path', { ...good, operation: '../x' }, 'invalid-request', /^operation: expected/],
    [
      'an unknown state',
      { ...good, state: 'before' },
      'invalid-request',
      /^state: expected pre, inspect, captured, post, got "before"$/,
    ],
    ['another version', { ...good, version: 2 }, 'invalid-request', /^version: expected 1, got 2$/],
    ['an id with a slash', { ...good, id: '../a' }, 'invalid-request', /^id: expected/],
    ['a field that is none', { ...good, command: 'rm' }, 'invalid-request', /^command: expected no such field/],
    [
      'a parameter with a newline',
      { ...good, params: { A: 'x\ny' } },
      'invalid-request',
      /^param A: expected one line/,
    ],
    ['a parameter that is no name', { ...good, params: { 'A B': 'x' } }, 'invalid-request', /^param: expected a name/],
    ['a parameter twice, in two cases', { ...good, params: { a: 'x', A: 'y' } }, 'invalid-request', /each name once/],
    ['a lease of nothing', { ...good, lease: '0s' }, 'invalid-request', /^lease: expected held, or a duration over 0/],
    ['a wait that is no duration', { ...good, wait: 'soon' }, 'invalid-request', /^wait: expected a duration/],
    ['a status over 255', { ...good, status: 256 }, 'invalid-request', /^status: expected 0 to 255/],
    ['started without a run', { ...good, state: 'started' }, 'invalid-request', /^run: expected the id/],
    ['inspect with a directory', { ...good, state: 'inspect', inspect: '/x' }, 'configuration', /not supported/],
    ['captured', { ...good, state: 'captured' }, 'configuration', /not supported/],
  ];
  for (const [what, raw, code, message] of bad) {
    it(`refuses ${what}, naming the field`, () => {
      const error = refusalOf(raw);
      assert.equal(error.code, code);
      assert.match(error.message, message);
    });
  }

  it('either returns a request or refuses with one short line, whatever comes', () => {
    const field = fc.constantFrom(
      'version',
      'id',
      'operation',
      'state',
      'job',
      'run',
      'params',
      'wait',
      'lease',
      'status',
    );
    fc.assert(
      fc.property(fc.dictionary(field, fc.anything()), fc.boolean(), (fields, isNearlyGood) => {
        try {
          parseRequest(isNearlyGood ? { ...good, ...fields } : fields, limits);
        } catch (error) {
          assert.ok(error instanceof OperationalError);
          assert.ok(error.message.length < 300 && !error.message.includes('\n'), error.message);
        }
      }),
    );
  });
});
