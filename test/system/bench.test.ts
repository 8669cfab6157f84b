import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { it } from 'node:test';
import { execa } from 'execa';
import { engineHost } from '../support/engine.ts';

const RUN = resolve(import.meta.dirname, '../../bench/run.ts');

/** Every line of the table, by what is measured. What the numbers are is no matter of a test. */
const WORK = [
  'idle: resident memory',
  'idle: processor, 0.5 s',
  'start: to the first answer, no engine',
  'start: to the first answer, Docker',
  'socket: pre and post, one host hook each',
  'spool: pre and post, from busybox sh',
  'socket: pre, 5 host hooks',
  'socket: pre, one hook in a container',
  'socket: pre, 10 hooks in one container',
  'socket: pre and post, 2 containers held',
  'socket: pre and post, 3 containers held',
  'socket: pre and post, 2 containers held, 1 s each to stop',
  'socket: pre and post, 2 containers held, 1 s each to stop',
  'socket: pre and post, a chain of 2 with health checks',
  'socket: plan, 20 containers, 10 of them ours',
  'image: what is added',
];

it('measures all that docs/performance.md tells', async ({ signal }) => {
  const { exitCode, stdout, stderr } = await execa(process.execPath, [RUN, '--quick'], {
    env: { DOCKER_HOST: engineHost() },
    cancelSignal: signal,
    reject: false,
    stdin: 'ignore',
  });
  assert.equal(exitCode, 0, stderr);
  const [head, , ...rows] = stdout.split('\n').map((line) => line.split('|').map((cell) => cell.trim()));
  assert.deepEqual(head?.slice(1, -1), ['goal', 'work', 'against', 'ours', 'theirs', 'ratio', 'at most']);
  assert.deepEqual(
    rows.map((row) => row[2]),
    WORK,
  );
  for (const row of rows) {
    const [, , work, , ours = '', theirs = '', ratio = ''] = row;
    for (const cell of [ours, theirs]) assert.match(cell, /^\d+(\.\d)? (ms|MB|ticks)$/, work);
    assert.match(ratio, /^idle: processor|^image/.test(work ?? '') ? /^(-|\d+\.\d\d)$/ : /^\d+\.\d\d$/, work);
  }
});
