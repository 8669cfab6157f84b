/** Velero's annotations on a real cluster, read as ours. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BUSYBOX } from '../support/images.ts';
import { openNamespace, SLOW_MS } from './namespace.ts';
import { aWorkload } from './objects.ts';

const SUITE_MS = 15 * 60_000;
const RELEASE = 'nightly-sidehook';

describe('a backup beside Velero', { timeout: SUITE_MS }, () => {
  it('runs the hooks that its annotations ask for', { timeout: SUITE_MS }, async () => {
    await using space = await openNamespace('velero');
    const annotations = {
      'pre.hook.backup.velero.io/command': '["sh", "-c", "echo frozen | tee /tmp/diary"]',
      'pre.hook.backup.velero.io/container': 'main',
      'post.hook.backup.velero.io/command': '["sh", "-c", "echo thawed | tee -a /tmp/diary"]',
      'post.hook.backup.velero.io/timeout': '1m30s',
    };
    await space.apply(aWorkload('Deployment', 'store', { annotations }));
    await space.kubectl('rollout', 'status', 'deployment/store', `--timeout=${SLOW_MS}ms`);
    const backup = { image: BUSYBOX, command: ['echo', 'the data'] };
    const quiet = { cronJob: { suspend: true }, recovery: { suspend: true } };
    await space.install(RELEASE, { engine: 'kubernetes', backup, settings: { compat: 'velero' }, ...quiet });
    const { exitCode, out } = await space.ended(await space.runNow(RELEASE));
    assert.equal(exitCode, 0, out);
    assert.match(out, /^frozen$.*^the data$.*^thawed$/ms);
    assert.equal(await space.kubectl('exec', 'deployment/store', '--', 'cat', '/tmp/diary'), 'frozen\nthawed');
  });
});
