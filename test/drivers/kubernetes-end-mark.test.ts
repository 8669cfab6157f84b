/** The mark that tells a hook's end: found however its output is cut, and nothing else is. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, it } from 'node:test';
import { openEndMark } from '../../src/drivers/kubernetes-end-mark.ts';

/** What a program printed on its standard error with the mark around it, and what is left of that, and told. */
async function printed(line: string, sizes: number) {
  let text = '';
  const mark = openEndMark(async ({ bytes }) => {
    text += Buffer.from(bytes).toString('latin1');
  });
  const [program = '', ...args] = mark.wrapped(['sh', '-c', line]);
  const { stderr, status } = spawnSync(program, args, { input: '' });
  for (let at = 0; at < stderr.length; at += sizes) {
    await mark.take({ stream: 'err', bytes: stderr.subarray(at, at + sizes) });
  }
  const life = AbortSignal.abort();
  return { text, status, told: await mark.told(life) };
}

describe('the mark of an end', () => {
  const lines: [line: string, text: string, exitCode: number][] = [
    ['exit 0', '', 0],
    ['printf oops >&2; exit 42', 'oops', 42],
    ["printf 'a\\036b\\036' >&2; exit 3", 'a\x1eb\x1e', 3],
    ["printf '\\036000000 0\\036' >&2; exit 4", '\x1e000000 0\x1e', 4],
    ['kill -9 $$', '', 137],
    ['absent-program 2>/dev/null', '', 127],
  ];
  for (const [line, text, exitCode] of lines) {
    it(`is found in pieces of any size: ${line}`, async () => {
      for (const size of [1, 2, 7, 4096]) {
        const result = await printed(line, size);
        assert.deepEqual(result, { text, status: exitCode, told: { status: 'ended', exitCode } });
      }
    });
  }

  it('takes in what comes after it', async () => {
    let text = '';
    const mark = openEndMark(async ({ bytes }) => {
      text += Buffer.from(bytes).toString();
    });
    const nonce = mark.wrapped([])[4] ?? '';
    await mark.take({ stream: 'err', bytes: Buffer.from(`before\x1e${nonce} 7\x1eafter`) });
    assert.equal(text, 'beforeafter');
    assert.deepEqual(await mark.told(AbortSignal.abort()), { status: 'ended', exitCode: 7 });
  });
});
