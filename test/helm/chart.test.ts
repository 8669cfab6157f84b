import assert from 'node:assert/strict';
import { mkdtempDisposable, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { loadConfig } from '../../src/config.ts';
import { SETTING_KEYS } from '../../src/config-schema.ts';
import {
  backupPodOf,
  CHART,
  HELM_MS,
  listValueSets,
  type Manifest,
  named,
  ofKind,
  podsOf,
  ROOT,
  render,
  template,
} from './chart.ts';
import { helm } from './helm.ts';

const DUMP = '#!/bin/sh\n# sidehook: on=backup.pre\necho "a: \'b\' {{ c }}" >/data/dump\n';

/** What the chart decides itself, or what a namespace has no use for. */
const NOT_IN_THE_CHART = [
  'run.dir',
  'state.dir',
  'hooks.dir',
  'engine',
  'scope',
  'host.enter',
  'helper.images',
  'clients',
];

describe('the chart', () => {
  before(() => helm('version'), { timeout: HELM_MS }); // downloads it

  it('passes helm lint, whatever the values', { timeout: HELM_MS }, async () => {
    for (const { name } of await listValueSets()) {
      const values = join(import.meta.dirname, 'values', `${name}.yaml`);
      const { all, failed } = await helm('lint', '--strict', CHART, '--values', values);
      assert.equal(failed, false, all);
    }
  });

  it('has the version of the program', async () => {
    const { version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'));
    assert.equal(backupPodOf(await render({})).initContainers[0].image, `sidehook:${version}`);
  });

  it('starts the sidecar before the backup, as a native one, and waits until it takes signals', async () => {
    const pod = backupPodOf(await render({}));
    const [sidecar, ...others] = pod.initContainers;
    assert.deepEqual(others, []);
    assert.equal(sidecar.restartPolicy, 'Always');
    assert.deepEqual(sidecar.startupProbe.exec.command, ['test', '-S', '/run/sidehook/sidehook.sock']);
    assert.equal(pod.restartPolicy, 'Never');
  });

  it("runs the backup's own command by way of the client that both share", async () => {
    const command = ['sh', '-c', 'echo "$HOME: {{ all }}" >&2'];
    const manifests = await render({ backup: { command, operation: 'prune', job: 'weekly' } });
    const [backup] = backupPodOf(manifests).containers;
    assert.deepEqual(backup.command, ['/run/sidehook/sidehook', 'run', 'prune', '--job', 'weekly', '--']);
    assert.deepEqual(backup.args, command);
    const [ours, theirs] = [backupPodOf(manifests).initContainers[0], backup].map(({ volumeMounts }) => volumeMounts);
    assert.deepEqual(theirs, [{ name: 'sidehook-run', mountPath: '/run/sidehook' }]);
    assert.ok(ours.some(({ name, mountPath }: Manifest) => name === 'sidehook-run' && mountPath === '/run/sidehook'));
  });

  it('restores by the same pod and another command, and only when somebody asks', async () => {
    const command = ['restic', 'restore', 'latest'];
    const env = [{ name: 'RESTIC_REPOSITORY', value: '/repository' }];
    const volumeMounts = [{ name: 'data', mountPath: '/data' }];
    const manifests = await render({ restore: { command, volumeMounts }, backup: { env } });
    const { spec } = named(manifests, 'CronJob', '-restore');
    assert.equal(spec.suspend, true);
    const [restore] = spec.jobTemplate.spec.template.spec.containers;
    assert.deepEqual(restore.command.slice(0, 3), ['/run/sidehook/sidehook', 'run', 'restore']);
    assert.deepEqual(restore.args, command);
    assert.deepEqual(restore.env, env);
    assert.deepEqual(restore.volumeMounts.at(-1), volumeMounts[0]);
  });

  it('names the job after the release, since its turn counts for the whole namespace', async () => {
    const [backup] = backupPodOf(await render({})).containers;
    assert.deepEqual(backup.command.slice(3, 5), ['--job', 'nightly-sidehook']);
  });

  it('mounts hooks so that they can be executed, and to the letter', async () => {
    const manifests = await render({ hooks: { '10-dump': DUMP } });
    const pod = backupPodOf(manifests);
    const { configMap } = volumeOf(pod, 'sidehook-hooks');
    assert.equal(configMap.defaultMode, 0o555);
    assert.deepEqual(named(manifests, 'ConfigMap', configMap.name).data, { '10-dump': DUMP });
    const mount = pod.initContainers[0].volumeMounts.find(({ name }: Manifest) => name === 'sidehook-hooks');
    assert.deepEqual(mount, { name: 'sidehook-hooks', mountPath: '/etc/sidehook/hooks.d', readOnly: true });
  });

  it("takes the operator's own ConfigMap, or a volume, in place of its hooks", async () => {
    const fromMap = await render({ hooksFrom: { configMap: 'mine' } });
    assert.deepEqual(volumeOf(backupPodOf(fromMap), 'sidehook-hooks').configMap, { name: 'mine', defaultMode: 0o555 });
    assert.equal(ofKind(fromMap, 'ConfigMap').length, 1);

    const claim = { claimName: 'hooks', readOnly: true };
    const fromVolume = await render({ hooksFrom: { volume: { persistentVolumeClaim: claim }, subPath: 'shop' } });
    const pod = backupPodOf(fromVolume);
    assert.deepEqual(volumeOf(pod, 'sidehook-hooks').persistentVolumeClaim, claim);
    const mount = pod.initContainers[0].volumeMounts.find(({ name }: Manifest) => name === 'sidehook-hooks');
    assert.equal(mount.subPath, 'shop');
    assert.equal(mount.readOnly, true);
  });

  it('writes settings that sidehook understands', async () => {
    const settings = { hooks: { timeout: '20m' }, operations: ['backup', 'prune'], run: { owner: ':7', mode: '0750' } };
    const manifests = await render({ settings: { ...settings, hold: { 'health-timeout': '30s' } } });
    await using dir = await mkdtempDisposable(join(tmpdir(), 'sidehook-chart-'));
    const configPath = join(dir.path, 'sidehook.yaml');
    await writeFile(configPath, named(manifests, 'ConfigMap', '-settings').data['sidehook.yaml']);
    const { config } = loadConfig({ env: {}, configPath, strict: true });
    assert.equal(config.engine, 'kubernetes');
    assert.equal(config.hooks.timeoutMs, 20 * 60_000);
    assert.deepEqual(config.operations, ['backup', 'prune']);
    assert.equal(config.run.gid, 7);
    assert.equal(config.run.mode, 0o750);
    assert.equal(config.hold.healthTimeoutMs, 30_000);
  });

  it('knows all settings but those that it decides itself', async () => {
    const schema = JSON.parse(await readFile(join(CHART, 'values.schema.json'), 'utf8'));
    const known = Object.entries<Manifest>(schema.properties.settings.properties).flatMap(([group, { properties }]) =>
      properties === undefined ? [group] : Object.keys(properties).map((name) => `${group}.${name}`),
    );
    const wanted = SETTING_KEYS.filter((key) => !NOT_IN_THE_CHART.includes(key));
    assert.deepEqual(known.toSorted(), wanted.toSorted(), 'values.schema.json, settings');
  });

  it('asks for nothing without an engine: no token, no role, no recovery', async () => {
    const manifests = await render({ engine: 'none', recovery: { enabled: true } });
    const kinds = manifests.map(({ kind }) => kind);
    assert.deepEqual(kinds, ['ConfigMap', 'ConfigMap', 'CronJob', 'Pod', 'ServiceAccount']);
    assert.doesNotMatch(JSON.stringify(manifests), /serviceAccountToken"/);
  });

  it('gives the token to the sidecar alone, in every pod of every value set', async () => {
    for (const { name, values } of await listValueSets()) {
      const manifests = await render(values);
      for (const { automountServiceAccountToken } of ofKind(manifests, 'ServiceAccount')) {
        assert.equal(automountServiceAccountToken, false);
      }
      for (const { owner, spec } of podsOf(manifests)) assertTokenIsolated(spec, `${name}: ${owner}`);
    }
  });

  it('lets what is turned off out of the Role, and never patches', async () => {
    const rolesOf = async (features: object) => ofKind(await render({ features }), 'Role');
    const resourcesOf = ([role]: Manifest[]) => role.rules.flatMap(({ resources }: Manifest) => resources);
    const full = await rolesOf({});
    assert.ok(resourcesOf(full).includes('pods/exec'));
    assert.ok(resourcesOf(full).includes('deployments/scale'));
    for (const { verbs, resources, apiGroups } of full[0].rules) {
      for (const word of [...verbs, ...resources, ...apiGroups]) assert.doesNotMatch(word, /patch|\*|secret/);
      const mayWrite = verbs.some((verb: string) => !['get', 'list', 'watch'].includes(verb));
      assert.equal(mayWrite, /exec|\/scale|leases/.test(resources.join()), resources.join());
    }
    const noExec = resourcesOf(await rolesOf({ exec: false }));
    assert.ok(!noExec.includes('pods/exec') && noExec.includes('statefulsets/scale'));
    const noScale = resourcesOf(await rolesOf({ scale: false }));
    assert.ok(noScale.includes('pods/exec') && !/scale|autoscal/.test(noScale.join()));
  });

  it('binds the Role to the account of the pod, its own or another', async () => {
    for (const [serviceAccount, name] of [
      [{}, 'nightly-sidehook'],
      [{ name: 'mine' }, 'mine'],
      [{ create: false, name: 'theirs' }, 'theirs'],
    ] as const) {
      const manifests = await render({ serviceAccount });
      assert.deepEqual(named(manifests, 'RoleBinding').subjects, [
        { kind: 'ServiceAccount', name, namespace: 'backup' },
      ]);
      for (const { spec } of podsOf(manifests)) assert.equal(spec.serviceAccountName, name);
      const accounts = ofKind(manifests, 'ServiceAccount').map(({ metadata }) => metadata.name);
      assert.deepEqual(accounts, 'create' in serviceAccount ? [] : [name]);
    }
  });

  it('recovers with nothing of the lost pod: no volume that its node may still have', async () => {
    const volumes = [{ name: 'data', persistentVolumeClaim: { claimName: 'shop' } }];
    const state = { volume: { persistentVolumeClaim: { claimName: 'state' } } };
    const sidecar = { volumeMounts: [{ name: 'data', mountPath: '/data' }] };
    const manifests = await render({ recovery: { enabled: true }, volumes, state, sidecar });
    const { spec } = named(manifests, 'CronJob', '-recovery');
    assert.equal(spec.concurrencyPolicy, 'Forbid');
    const pod = spec.jobTemplate.spec.template.spec;
    assert.deepEqual(pod.containers[0].args, ['recover']);
    assert.throws(() => named(manifests, 'CronJob', '-release')); // there is no restore
    assert.doesNotMatch(JSON.stringify(pod), /persistentVolumeClaim|"data"/);
    assert.deepEqual(volumeOf(backupPodOf(manifests), 'sidehook-state'), {
      name: 'sidehook-state',
      ...state.volume,
    });
  });

  it('lets go of what a restore that failed keeps when it is asked to, and not before', async () => {
    const manifests = await render({ restore: { command: ['a'] }, backup: { job: 'Shop' } });
    const { spec } = named(manifests, 'CronJob', '-release');
    assert.equal(spec.suspend, true);
    assert.deepEqual(spec.jobTemplate.spec.template.spec.containers[0].args, ['recover', '--release', 'Shop']);
  });

  it('lets a pod that ends have the time of the hooks that are still to come', async () => {
    const timeOf = async (values: object) =>
      backupPodOf(await render({ engine: 'none', ...values })).terminationGracePeriodSeconds;
    const hook = (header: string) => `#!/bin/sh\n# sidehook: ${header}\n:\n`;
    assert.equal(await timeOf({}), 60);
    assert.equal(await timeOf({ hooks: { a: hook('on=backup.pre timeout=5h') } }), 60);
    assert.equal(await timeOf({ hooks: { a: hook('on=backup.pre,backup.post timeout=1h1m1s') } }), 60 + 3661);
    assert.equal(await timeOf({ hooks: { a: hook('timeout=90s retries=2'), b: hook('on=*.* timeout=1500ms') } }), 332);
    assert.equal(await timeOf({ hooks: { a: '#!/bin/sh\n' }, settings: { hooks: { timeout: '08m' } } }), 60 + 480);
    assert.equal(await timeOf({ hooksFrom: { configMap: 'mine' } }), 60 + 3600);
    assert.equal(await timeOf({ engine: 'kubernetes' }), 60 + 3600 + 120);
    const held = { engine: 'kubernetes', features: { exec: false }, settings: { hold: { 'health-timeout': '10m' } } };
    assert.equal(await timeOf(held), 60 + 600);
    assert.equal(await timeOf({ terminationGracePeriodSeconds: 0 }), 0);
  });

  it('makes pods that the restricted profile lets in', async () => {
    for (const { owner, spec } of podsOf(await render({ recovery: { enabled: true }, restore: { command: ['a'] } }))) {
      assert.equal(spec.securityContext.runAsNonRoot, true, owner);
      assert.equal(spec.securityContext.seccompProfile.type, 'RuntimeDefault', owner);
      assert.equal(spec.securityContext.fsGroup, spec.securityContext.runAsGroup, owner);
      for (const { name, securityContext } of containersOf(spec)) {
        assert.equal(securityContext.allowPrivilegeEscalation, false, `${owner} ${name}`);
        assert.deepEqual(securityContext.capabilities, { drop: ['ALL'] }, `${owner} ${name}`);
        const isOurs = !['backup', 'restore'].includes(name);
        assert.equal(securityContext.readOnlyRootFilesystem, isOurs ? true : undefined, `${owner} ${name}`);
      }
    }
  });

  it('puts everything into the namespace, so that kubectl apply does what helm install would', async () => {
    for (const { values } of await listValueSets()) {
      for (const { kind, metadata } of await render(values)) assert.equal(metadata.namespace, 'backup', kind);
    }
  });

  it('mounts each volume that there is, and no other', async () => {
    for (const { name, values } of await listValueSets()) {
      for (const { owner, spec } of podsOf(await render(values))) {
        const volumes = spec.volumes.map((volume: Manifest) => volume.name);
        assert.equal(new Set(volumes).size, volumes.length, `${name}: ${owner}`);
        const mounts = containersOf(spec).flatMap(({ volumeMounts }) =>
          volumeMounts.map((mount: Manifest) => mount.name),
        );
        assert.deepEqual(new Set(mounts), new Set(volumes), `${name}: ${owner}`);
      }
    }
  });

  it('says on a cluster without native sidecars what to do about it', async () => {
    const { all, failed } = await template({}, { kubeVersion: '1.28.4' });
    assert.equal(failed, true);
    assert.match(all, /sidecar\.native: expected false on Kubernetes v1\.28\.4/);
    const pod = backupPodOf(await render({ sidecar: { native: false } }, { kubeVersion: '1.28.4' }));
    assert.equal(pod.initContainers, undefined);
    assert.deepEqual(
      pod.containers.map(({ name }: Manifest) => name),
      ['sidehook', 'backup'],
    );
    for (const { restartPolicy } of pod.containers) assert.equal(restartPolicy, undefined);
  });

  for (const [what, values, complaint] of [
    ['a value that nobody knows', { schedul: '@daily' }, /schedul/],
    ['a value that nobody knows, further down', { cronJob: { schedul: '@daily' } }, /cronJob.*schedul/s],
    ['an engine that it has not', { engine: 'docker' }, /engine/],
    ['a setting that it decides itself', { settings: { run: { dir: '/mine' } } }, /settings.*run.*dir/s],
    ['a setting that is misspelt', { settings: { hold: { maximum: '1h' } } }, /hold.*maximum/s],
    ['a duration without a unit', { settings: { hold: { max: '60' } } }, /hold.*max/s],
    ['a mode that YAML took for a number', { settings: { run: { mode: 0o770 } } }, /run.*mode/s],
    ['a hook that names no interpreter', { hooks: { '10-dump': 'echo' } }, /10-dump/],
    ['a hook whose name no ConfigMap could have', { hooks: { 'a b': '#!/bin/sh\n' } }, /'a b'/],
    ['a command that is no list', { backup: { command: 'restic backup' } }, /command/],
    ['an operation that is none', { backup: { operation: 'Back up' } }, /operation/],
    ['two sources in one volume', { state: { volume: { emptyDir: {}, hostPath: { path: '/' } } } }, /state.*volume/s],
    ['switches that are words', { features: { exec: 'sometimes' } }, /features.*exec/s],
  ] as const) {
    it(`refuses ${what}`, async () => {
      const { all, failed } = await template(values);
      assert.equal(failed, true);
      assert.match(all, complaint);
      assert.match(all, /schema/);
    });
  }

  for (const [what, values, complaint] of [
    [
      'hooks from two places',
      { hooks: { a: DUMP }, hooksFrom: { configMap: 'mine' } },
      /hooks and hooksFrom: expected one of them/,
    ],
    [
      'a ConfigMap and a volume of hooks',
      { hooksFrom: { configMap: 'mine', volume: { emptyDir: {} } } },
      /hooksFrom: expected configMap or volume/,
    ],
    ['an account that has no name', { serviceAccount: { create: false } }, /serviceAccount\.name: needed/],
  ] as const) {
    it(`refuses ${what}`, async () => {
      const { all, failed } = await template(values);
      assert.equal(failed, true);
      assert.match(all, complaint);
    });
  }
});

function volumeOf({ volumes }: Manifest, wanted: string): Manifest {
  return volumes.find(({ name }: Manifest) => name === wanted);
}

function containersOf({ initContainers = [], containers }: Manifest): Manifest[] {
  return [...initContainers, ...containers];
}

function assertTokenIsolated(spec: Manifest, where: string): void {
  assert.equal(spec.automountServiceAccountToken, false, where);
  assert.notEqual(spec.shareProcessNamespace, true, where); // what sees the process sees its files
  const tokens = spec.volumes.filter((volume: Manifest) => JSON.stringify(volume).includes('serviceAccountToken'));
  assert.ok(tokens.length <= 1, where);
  for (const { name, volumeMounts } of containersOf(spec)) {
    const mounted = volumeMounts.filter((mount: Manifest) =>
      tokens.some((token: Manifest) => token.name === mount.name),
    );
    const isOurs = !['backup', 'restore', 'archive'].includes(name);
    assert.equal(mounted.length, isOurs ? tokens.length : 0, `${where}: ${name}`);
  }
}
