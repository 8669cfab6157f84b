import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { formatDuration, parseDuration } from '../../../src/core/duration.ts';

describe('durations', () => {
  it('reads what people write', () => {
    const texts = { '500ms': 500, '30s': 30_000, '10m': 600_000, '2h': 7_200_000, '7d': 604_800_000, '0s': 0 };
    for (const [text, ms] of Object.entries(texts)) assert.equal(parseDuration(text), ms, text);
    assert.equal(parseDuration('1h30m'), 5_400_000);
    assert.equal(parseDuration('1m500ms'), 60_500);
  });

  it('refuses what could mean two things, or nothing', () => {
    const texts = [
      '',
      '30',
      's',
      '-1s',
      '+1s',
      '1.5h',
      '1 h',
      ' 1h',
      '1h ',
      '30m1h',
      '1h1h',
      '1H',
      '1w',
      '1e3s',
      '１s',
      '1s\n',
    ];
    for (const text of texts) assert.equal(parseDuration(text), undefined, JSON.stringify(text));
  });

  it('refuses what no number holds exactly', () => {
    assert.equal(parseDuration('999999999999999d'), undefined);
  });

  it('writes the shortest exact text', () => {
    const texts = { 0: '0s', 1: '1ms', 1000: '1s', 60000: '1m', 5400000: '1h30m', 86400001: '1d1ms' };
    for (const [ms, text] of Object.entries(texts)) assert.equal(formatDuration(Number(ms)), text);
  });

  it('reads back whatever it writes', () => {
    fc.assert(fc.property(fc.maxSafeNat(), (ms) => assert.equal(parseDuration(formatDuration(ms)), ms)));
  });

  it('reads any text without a throw, and only whole, non-negative milliseconds', () => {
    const texts = fc.oneof(fc.string(), fc.stringMatching(/^[0-9dhms]{0,20}$/));
    fc.assert(
      fc.property(texts, (text) => {
        const ms = parseDuration(text);
        assert.ok(ms === undefined || (Number.isSafeInteger(ms) && ms >= 0));
      }),
    );
  });
});
