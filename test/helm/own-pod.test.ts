import assert from 'node:assert/strict';
import { cp, mkdtempDisposable, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { parse } from 'yaml';
import { CHART, HELM_MS, type Manifest, named, ofKind, ROOT, render } from './chart.ts';
import { helm } from './helm.ts';

const EXAMPLES = join(ROOT, 'examples/kubernetes');

describe('the examples for Kubernetes', () => {
  before(() => helm('version'), { timeout: HELM_MS });

  it('add the sidecar to a pod of your own, and the token to the sidecar alone', { timeout: HELM_MS }, async () => {
    await using dir = await mkdtempDisposable(join(tmpdir(), 'sidehook-chart-'));
    const chart = join(dir.path, 'examples/kubernetes/own-pod');
    await cp(join(EXAMPLES, 'own-pod'), chart, { recursive: true });
    await cp(CHART, join(dir.path, 'helm/sidehook'), { recursive: true });
    const { all, failed } = await helm('dependency', 'build', chart);
    assert.equal(failed, false, all);

    const manifests = await render({}, { chart });
    assert.equal(named(manifests, 'CronJob').metadata.name, 'archive-sidehook-recovery');
    const { metadata, spec: pod } = named(manifests, 'Deployment').spec.template;
    const [sidecar] = pod.initContainers;
    assert.equal(sidecar.name, 'sidehook');
    assert.equal(sidecar.restartPolicy, 'Always');
    assert.equal(sidecar.image, 'sidehook:0.1.0');
    assert.equal(pod.serviceAccountName, named(manifests, 'ServiceAccount').metadata.name);
    assert.equal(named(manifests, 'RoleBinding').subjects[0].name, pod.serviceAccountName);
    assert.equal(pod.automountServiceAccountToken, false);
    assert.equal(pod.terminationGracePeriodSeconds, 60 + 3600 + 120);
    assert.deepEqual(Object.keys(metadata.annotations), ['checksum/sidehook']); // sidehook.io/ is for the driver

    const mountsOf = (container: Manifest) => container.volumeMounts.map(({ name }: Manifest) => name);
    assert.ok(mountsOf(sidecar).includes('sidehook-token'));
    const [archive, backup] = pod.containers;
    assert.deepEqual(mountsOf(archive), ['data']);
    assert.deepEqual(mountsOf(backup), ['sidehook-run', 'data', 'backup']);
    const volumes = pod.volumes.map(({ name }: Manifest) => name);
    for (const mount of mountsOf(sidecar)) assert.ok(volumes.includes(mount), mount);
  });

  it('are values that the chart takes', async () => {
    const values = parse(await readFile(join(EXAMPLES, 'values.yaml'), 'utf8'));
    const manifests = await render(values);
    const names = ofKind(manifests, 'CronJob').map(({ metadata }) => metadata.name);
    assert.deepEqual(names, [
      'nightly-sidehook',
      'nightly-sidehook-recovery',
      'nightly-sidehook-release',
      'nightly-sidehook-restore',
    ]);
  });
});
