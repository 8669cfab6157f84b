/** Kubeconform, with the schemas of the cluster at hand: they cannot be had anywhere else. */
import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { cacheDir, say, withLock } from '../support/install.ts';
import { findGo } from './parts.ts';

const MODULE = 'github.com/yannh/kubeconform';
const VERSION = 'v0.7.0';
const BUILD_MS = 15 * 60_000;
const DEFINITION = '#/definitions/';

// biome-ignore lint/suspicious/noExplicitAny: a JSON schema, whatever it says
type Schema = any;

/** The program, built with Go once and kept. */
export async function findKubeconform(): Promise<string> {
  const dir = join(await cacheDir(), `kubeconform-${VERSION}`);
  const program = join(dir, 'kubeconform');
  return withLock(`kubeconform-${VERSION}`, async () => {
    const { failed } = await execa(program, ['-v'], { reject: false });
    if (!failed) return program;
    const go = await findGo();
    if (go === undefined) throw new Error(`build ${MODULE} ${VERSION}: no go in PATH or /usr/local/go/bin`);
    say(`building ${MODULE} ${VERSION}`);
    const draft = await mkdtemp(`${dir}-`);
    const env = { GOBIN: draft, CGO_ENABLED: '0', GOFLAGS: '-mod=mod -trimpath -buildvcs=false', GOWORK: 'off' };
    await execa('nice', [go, 'install', `${MODULE}/cmd/kubeconform@${VERSION}`], { env, timeout: BUILD_MS });
    await rm(dir, { recursive: true, force: true });
    await rename(draft, dir);
    return program;
  });
}

/**
 * Writes a schema for each of these kinds (`batch/v1 CronJob`), from what the API server itself says of them. Resolves
 * to the `-schema-location` for kubeconform.
 */
export async function writeSchemas(dir: string, kinds: ReadonlySet<string>): Promise<string> {
  const { stdout } = await execa('kubectl', ['get', '--raw', '/openapi/v2']);
  const { definitions } = JSON.parse(stdout);
  await mkdir(dir, { recursive: true });
  for (const [name, definition] of Object.entries<Schema>(definitions)) {
    for (const { group, version, kind } of definition['x-kubernetes-group-version-kind'] ?? []) {
      if (!kinds.has(`${group === '' ? '' : `${group}/`}${version} ${kind}`)) continue;
      const needed: Record<string, Schema> = {};
      collect(name, definitions, needed);
      const file = [kind, ...group.split('.').slice(0, 1), version].filter(Boolean).join('-').toLowerCase();
      await writeFile(join(dir, `${file}.json`), JSON.stringify({ $ref: DEFINITION + name, definitions: needed }));
    }
  }
  return join(dir, '{{ .ResourceKind }}{{ .KindSuffix }}.json');
}

/** This definition and all that it refers to. */
function collect(name: string, definitions: Schema, into: Record<string, Schema>): void {
  if (name in into) return;
  const strict = strictOf(definitions[name]);
  into[name] = strict;
  for (const [, other = ''] of JSON.stringify(strict).matchAll(/"\$ref":"#\/definitions\/([^"]+)"/g)) {
    collect(other, definitions, into);
  }
}

/** What the server knows no field of is a mistake, and its way of saying "a number or a text" is no type. */
function strictOf(schema: Schema): Schema {
  if (typeof schema !== 'object' || schema === null) return schema;
  if (Array.isArray(schema)) return schema.map(strictOf);
  if (schema.format === 'int-or-string') return { type: ['string', 'integer'] };
  const strict = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, strictOf(value)]));
  const isClosed = 'properties' in schema && !('additionalProperties' in schema);
  return isClosed && typeof schema.type === 'string' ? { ...strict, additionalProperties: false } : strict;
}
