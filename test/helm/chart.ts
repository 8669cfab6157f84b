/** The chart, rendered as Helm does it. */
import assert from 'node:assert/strict';
import { mkdtempDisposable, readdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { parseAllDocuments, stringify } from 'yaml';
import { helm } from './helm.ts';

export const ROOT = resolve(import.meta.dirname, '../..');
export const CHART = join(ROOT, 'helm/sidehook');

/** For the first call, which may have to download Helm. */
export const HELM_MS = 10 * 60_000;

/** Manifests are whatever they are; a wrong path in a test fails that test. */
// biome-ignore lint/suspicious/noExplicitAny: see above
export type Manifest = any;

/** What Helm says to these values, each a file's text. */
export async function template(
  values: object,
  { chart = CHART, kubeVersion = '1.34.0' } = {},
): Promise<{ readonly all: string; readonly failed: boolean }> {
  await using dir = await mkdtempDisposable(join(tmpdir(), 'sidehook-chart-'));
  const file = join(dir.path, 'values.yaml');
  await writeFile(file, stringify(values));
  const options = [`--kube-version=${kubeVersion}`, '--namespace=backup', `--values=${file}`];
  return await helm('template', 'nightly', chart, ...options);
}

/** Everything that the chart makes of these values, each a document without a mistake, by kind and name. */
export async function render(
  values: object,
  options?: { readonly chart?: string; readonly kubeVersion?: string },
): Promise<Manifest[]> {
  const { all, failed } = await template(values, options);
  assert.equal(failed, false, all);
  const documents = parseAllDocuments(all, { version: '1.1' }); // as Kubernetes reads it: 0555 is octal
  assert.ok(Array.isArray(documents));
  const manifests = documents.map((document): Manifest => {
    assert.deepEqual([...document.errors, ...document.warnings], []);
    return document.toJS();
  });
  const keyOf = ({ kind, metadata }: Manifest) => `${kind} ${metadata.name}`;
  return manifests.toSorted((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
}

/** The value sets in `test/helm/values`, by name. */
export async function listValueSets(): Promise<readonly { readonly name: string; readonly values: object }[]> {
  const dir = join(import.meta.dirname, 'values');
  const files = (await readdir(dir)).toSorted();
  return Promise.all(
    files.map(async (file) => {
      const [document] = parseAllDocuments(await readFile(join(dir, file), 'utf8'));
      return { name: basename(file, '.yaml'), values: document?.toJS() };
    }),
  );
}

export function ofKind(manifests: readonly Manifest[], kind: string): Manifest[] {
  return manifests.filter((manifest) => manifest.kind === kind);
}

/** The manifest of this kind whose name ends so. */
export function named(manifests: readonly Manifest[], kind: string, ending = ''): Manifest {
  const found = ofKind(manifests, kind).filter(({ metadata }) => metadata.name.endsWith(ending));
  assert.equal(found.length, 1, `${kind} …${ending}: ${found.length} of ${manifests.length}`);
  return found[0];
}

/** The specs of all pods that these manifests lead to, each with its owner. */
export function podsOf(manifests: readonly Manifest[]): readonly { readonly owner: string; readonly spec: Manifest }[] {
  return manifests.flatMap(({ kind, metadata, spec }) => {
    const owner = `${kind} ${metadata.name}`;
    if (kind === 'CronJob') return [{ owner, spec: spec.jobTemplate.spec.template.spec }];
    if (kind === 'Deployment') return [{ owner, spec: spec.template.spec }];
    if (kind === 'Pod') return [{ owner, spec }];
    return [];
  });
}

/** The pod of the backup. */
export function backupPodOf(manifests: readonly Manifest[]): Manifest {
  return named(manifests, 'CronJob', 'sidehook').spec.jobTemplate.spec.template.spec;
}
