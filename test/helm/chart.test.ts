import assert from 'node:assert/strict';
import { mkdtempDisposable, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { before, describe, it } from 'node:test';
import { parseAllDocuments, stringify } from 'yaml';
import { loadConfig } from '../../src/config.ts';
import { helm } from './helm.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const CHART = join(ROOT, 'helm/sidehook');
const HELM_MS = 10 * 60_000;

const DUMP = '#!/bin/sh\n# sidehook: on=backup.pre\necho "a: \'b\' {{ c }}" >/data/dump\n';

/** Manifests are whatever they are; a wrong path in a test fails that test. */
// biome-ignore lint/suspicious/noExplicitAny: see above
type Manifest = any;

describe('the chart', () => {
  before(() => helm('version'), { timeout: HELM_MS }); // downloads it

  it('passes helm lint', async () => {
    const { all, failed } = await helm('lint', '--strict', CHART);
    assert.equal(failed, false, all);
  });

  it('makes a CronJob with its hooks and settings, and an account that may do nothing', async () => {
    const manifests = await render({});
    const kinds = manifests.map(({ kind }) => kind).toSorted((a, b) => a.localeCompare(b));
    assert.deepEqual(kinds, ['ConfigMap', 'ConfigMap', 'CronJob', 'ServiceAccount']);
    assert.equal(ofKind(manifests, 'ServiceAccount').automountServiceAccountToken, false);
    assert.equal(podOf(manifests).automountServiceAccountToken, false);
    for (const { metadata } of manifests) assert.match(metadata.name, /^nightly-sidehook/);
  });

  it('starts the sidecar before the backup, as a native one, and waits until it takes signals', async () => {
    const pod = podOf(await render({}));
    const [sidecar, ...others] = pod.initContainers;
    assert.deepEqual(others, []);
    assert.equal(sidecar.restartPolicy, 'Always');
    assert.deepEqual(sidecar.startupProbe.exec.command, ['sidehook', 'health']);
    const { version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'));
    assert.equal(sidecar.image, `sidehook:${version}`);
    assert.equal(pod.restartPolicy, 'Never');
  });

  it("runs the backup's own command by way of the client that both share", async () => {
    const command = ['sh', '-c', 'echo "$HOME: {{ all }}" >&2'];
    const pod = podOf(await render({ backup: { command, operation: 'restore', job: 'weekly' } }));
    const [backup] = pod.containers;
    assert.deepEqual(backup.command, ['/run/sidehook/sidehook', 'run', 'restore', '--job', 'weekly', '--']);
    assert.deepEqual(backup.args, command);
    const [ours, theirs] = [pod.initContainers[0], backup].map(({ volumeMounts }) => volumeMounts);
    const shared = theirs.map(({ name }: Manifest) => name);
    assert.deepEqual(shared, ['sidehook-run']);
    assert.ok(ours.some(({ name, mountPath }: Manifest) => name === 'sidehook-run' && mountPath === '/run/sidehook'));
  });

  it('mounts hooks so that they can be executed, and to the letter', async () => {
    const manifests = await render({ hooks: { '10-dump': DUMP } });
    const pod = podOf(manifests);
    const { configMap } = pod.volumes.find(({ name }: Manifest) => name === 'sidehook-hooks');
    assert.equal(configMap.defaultMode, 0o555);
    const hooks = manifests.find(({ metadata }) => metadata.name === configMap.name);
    assert.deepEqual(hooks?.data, { '10-dump': DUMP });
    const mount = pod.initContainers[0].volumeMounts.find(({ name }: Manifest) => name === 'sidehook-hooks');
    assert.deepEqual(mount, { name: 'sidehook-hooks', mountPath: '/etc/sidehook/hooks.d', readOnly: true });
  });

  it("takes the operator's own ConfigMap in place of its hooks", async () => {
    const manifests = await render({ existingHooks: 'mine' });
    const volume = podOf(manifests).volumes.find(({ name }: Manifest) => name === 'sidehook-hooks');
    assert.equal(volume.configMap.name, 'mine');
    assert.equal(manifests.filter(({ kind }) => kind === 'ConfigMap').length, 1);
  });

  it('writes settings that sidehook understands', async () => {
    const settings = { 'hooks.timeout': '20m', operations: ['backup', 'prune'], log: { level: 'debug' } };
    const manifests = await render({ sidecar: { settings } });
    const settingsOf = manifests.find(({ metadata }) => metadata.name.endsWith('-settings'));
    await using dir = await mkdtempDisposable(join(tmpdir(), 'sidehook-chart-'));
    const configPath = join(dir.path, 'sidehook.yaml');
    await writeFile(configPath, settingsOf?.data['sidehook.yaml']);
    const { config } = loadConfig({ env: {}, configPath, strict: true });
    assert.equal(config.engine, 'none');
    assert.equal(config.hooks.timeoutMs, 20 * 60_000);
    assert.deepEqual(config.operations, ['backup', 'prune']);
    assert.equal(config.log.level, 'debug');
  });

  it('gives both what the operator has for them: volumes, variables, places', async () => {
    const volume = { name: 'data', persistentVolumeClaim: { claimName: 'shop' } };
    const volumeMounts = [{ name: 'data', mountPath: '/data' }];
    const env = [{ name: 'RESTIC_PASSWORD', valueFrom: { secretKeyRef: { name: 'restic', key: 'password' } } }];
    const pod = podOf(
      await render({
        volumes: [volume],
        backup: { env, volumeMounts },
        sidecar: { env, volumeMounts },
        ...{ nodeSelector: { disk: 'ssd' }, tolerations: [{ operator: 'Exists' }], podLabels: { team: 'shop' } },
        ...{ activeDeadlineSeconds: 60, timeZone: 'Etc/UTC', imagePullSecrets: [{ name: 'registry' }] },
      }),
    );
    assert.ok(pod.volumes.some(({ name }: Manifest) => name === 'data'));
    for (const container of [...pod.initContainers, ...pod.containers]) {
      assert.deepEqual(container.env, env);
      assert.deepEqual(container.volumeMounts.at(-1), volumeMounts[0]);
    }
    assert.deepEqual(pod.nodeSelector, { disk: 'ssd' });
    assert.deepEqual(pod.imagePullSecrets, [{ name: 'registry' }]);
  });

  for (const [what, values, complaint] of [
    ['a value that nobody knows', { schedul: '@daily' }, /schedul/],
    ['an engine, since it has none', { sidecar: { settings: { engine: 'docker' } } }, /engine/],
    ['a hook that names no interpreter', { hooks: { '10-dump': 'echo' } }, /10-dump/],
    ['a command that is no list', { backup: { command: 'restic backup' } }, /command/],
  ] as const) {
    it(`refuses ${what}`, async () => {
      const { all, failed } = await template(values);
      assert.equal(failed, true);
      assert.match(all, complaint);
      assert.match(all, /schema/);
    });
  }
});

async function template(values: object): Promise<{ readonly all: string; readonly failed: boolean }> {
  await using dir = await mkdtempDisposable(join(tmpdir(), 'sidehook-chart-'));
  const file = join(dir.path, 'values.yaml');
  await writeFile(file, stringify(values));
  return await helm('template', 'nightly', CHART, '--kube-version=1.34.0', '--values', file);
}

/** Everything that the chart makes of these values, each a document without a mistake. */
async function render(values: object): Promise<Manifest[]> {
  const { all, failed } = await template(values);
  assert.equal(failed, false, all);
  const documents = parseAllDocuments(all, { version: '1.1' }); // as Kubernetes reads it: 0555 is octal
  assert.ok(Array.isArray(documents));
  return documents.map((document) => {
    assert.deepEqual([...document.errors, ...document.warnings], []);
    return document.toJS();
  });
}

function ofKind(manifests: readonly Manifest[], kind: string): Manifest {
  return manifests.find((manifest) => manifest.kind === kind);
}

function podOf(manifests: readonly Manifest[]): Manifest {
  return ofKind(manifests, 'CronJob').spec.jobTemplate.spec.template.spec;
}
