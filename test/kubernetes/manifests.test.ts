/** What the chart makes of all its value sets, before a real API server. */
import assert from 'node:assert/strict';
import { mkdtempDisposable, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { execa } from 'execa';
import { stringify } from 'yaml';
import { listValueSets, type Manifest, render } from '../helm/chart.ts';
import { findKubeconform, writeSchemas } from './kubeconform.ts';
import { openNamespace } from './namespace.ts';

const LONG_MS = 20 * 60_000;

describe('the manifests of all value sets', { timeout: LONG_MS }, () => {
  it("fit the cluster's own schemas, by kubeconform", { timeout: LONG_MS }, async () => {
    await using dir = await mkdtempDisposable(join(tmpdir(), 'sidehook-manifests-'));
    const kinds = new Set<string>();
    const files: string[] = [];
    for (const { name, values } of await listValueSets()) {
      const manifests = await render(values);
      for (const { apiVersion, kind } of manifests) kinds.add(`${apiVersion} ${kind}`);
      const file = join(dir.path, `${name}.yaml`);
      await writeFile(file, manifests.map((manifest) => stringify(manifest)).join('---\n'));
      files.push(file);
    }
    const program = await findKubeconform();
    const location = await writeSchemas(join(dir.path, 'schemas'), kinds);
    const check = (...paths: readonly string[]) =>
      execa(program, ['-strict', '-summary', '-schema-location', location, ...paths], { all: true, reject: false });

    const { exitCode, all } = await check(...files);
    assert.equal(exitCode, 0, all);
    assert.match(all, /Invalid: 0, Errors: 0, Skipped: 0/);

    const broken = join(dir.path, 'broken.yaml');
    const pod = { restartPolicy: 'Never', containers: [{ name: 'a', imagee: 'b' }] };
    await writeFile(broken, stringify({ apiVersion: 'v1', kind: 'Pod', metadata: { name: 'a' }, spec: pod }));
    assert.match((await check(broken)).all, /imagee/);
  });

  it('are taken by the API server, in a namespace that lets in the restricted profile alone', {
    timeout: LONG_MS,
  }, async () => {
    await using space = await openNamespace('manifests');
    const profile = ['enforce', 'warn'].map((what) => `pod-security.kubernetes.io/${what}=restricted`);
    await space.kubectl('label', 'namespace', space.name, ...profile);
    for (const { name, values } of await listValueSets()) {
      const manifests = await render(values);
      const withoutPods = manifests.filter(({ kind }) => kind !== 'Pod'); // its account is not there in a dry run
      const moved = withoutPods.map(({ metadata, subjects, ...rest }: Manifest) => ({
        ...rest,
        metadata: { ...metadata, namespace: space.name },
        ...(subjects && { subjects: subjects.map((subject: Manifest) => ({ ...subject, namespace: space.name })) }),
      }));
      const input = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: moved });
      const args = ['--namespace', space.name, 'apply', '--dry-run=server', '--validate=strict', '--filename', '-'];
      const { exitCode, all } = await execa('kubectl', args, { input, all: true, reject: false });
      assert.equal(exitCode, 0, `${name}: ${all}`);
      if (name === 'another-user')
        assert.match(all, /would violate PodSecurity/); // root, on purpose
      else assert.doesNotMatch(all, /Warning/, name);
    }
  });
});
