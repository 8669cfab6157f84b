/**
 * Makes `dist`, all that the image needs beside Node:
 *
 *   sidehook.js     what is started: has Node keep to little memory, turns on the compile cache, then loads main.js
 *   main.js         the whole program, libraries included, but for
 *   kubernetes.js   the driver for Kubernetes with its libraries: read only where that is the engine
 *   errors.js       what both of them throw
 *   intake/client.sh
 *   package.json    version, and that these are ES modules
 *   LICENSES.txt    of the libraries in main.js
 */
import { chmod, copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { build, type Plugin } from 'esbuild';

const ROOT = resolve(import.meta.dirname, '..');

/**
 * dockerode's ways to an engine by ssh and to BuildKit: 27 MB of memory, and sidehook takes neither. And another HTTP
 * client, for calls of the Kubernetes client that we do not use.
 */
const LEFT_OUT = ['ssh2', '@grpc/grpc-js', '@grpc/proto-loader', 'protobufjs', 'undici'];

/**
 * The Kubernetes client declares some 1,500 classes, of which sidehook takes one. It does not say that they do nothing
 * when they are merely loaded, so we say it: 60 MB of sources become some hundred KB.
 */
const dropUnused: Plugin = {
  name: 'drop-unused',
  setup({ onResolve, resolve }) {
    onResolve({ filter: /./ }, async ({ path, pluginData, ...rest }) => {
      const isTheirs = path.startsWith('@kubernetes/client-node') || rest.importer.includes('@kubernetes/client-node/');
      if (!isTheirs || pluginData === LOOKED_UP) return undefined;
      const found = await resolve(path, { ...rest, pluginData: LOOKED_UP });
      return { ...found, sideEffects: false };
    });
  },
};
const LOOKED_UP = 'looked up';

/** What is a file of its own; `errors.js` because a class that is there twice is two classes. */
const FILES = {
  'main.js': 'src/main.ts',
  'kubernetes.js': 'src/drivers/kubernetes.ts',
  'errors.js': 'src/core/errors.ts',
};

/** Leaves the import of another of the files as one. */
const filesApart = (source: string): Plugin => ({
  name: 'files-apart',
  setup({ onResolve }) {
    const filter = /\/(?:kubernetes|errors)\.ts$/;
    onResolve({ filter }, ({ path, resolveDir }) => {
      const found = Object.entries(FILES).find(
        ([, one]) => one !== source && join(ROOT, one) === resolve(resolveDir, path),
      );
      return found === undefined ? undefined : { path: `./${found[0]}`, external: true };
    });
  },
});

/** Loads, for dockerode it at once, and throws as soon as anything of it is used. */
const REFUSAL = `
  const refuse = () => { throw new Error(NAME + ' is not part of this build of sidehook'); };
  module.exports = new Proxy(refuse, { get: () => module.exports, construct: refuse });`;

/**
 * Read by a shell first, which starts Node with two flags, and then by Node, to which the second line is a string and a
 * comment. The flags keep V8 from letting memory grow before it looks for what nobody needs; they are no limit, which
 * could end a sidecar that needs more. Given later, or by the program itself, they would do nothing.
 *
 * The cache lies beside the program, filled when the image is built; where nobody may write, it is only read.
 */
const LAUNCHER = `#!/bin/sh
':' //; exec node --max-semi-space-size=1 --optimize-for-size "$0" "$@"
import { enableCompileCache } from 'node:module';
import { join } from 'node:path';
enableCompileCache(join(import.meta.dirname, 'cache'));
await import('./main.js');
`;

/** Libraries that are CommonJS ask for Node's own modules by `require`, which a module of today does not have. */
const PREAMBLE = `import { createRequire as makeRequire } from 'node:module';
const require = makeRequire(import.meta.url);`;

const leaveOut: Plugin = {
  name: 'leave-out',
  setup({ onResolve, onLoad }) {
    const filter = new RegExp(`^(${LEFT_OUT.join('|')})$`);
    onResolve({ filter }, ({ path }) => ({ path, namespace: 'left-out' }));
    onLoad({ filter, namespace: 'left-out' }, ({ path }) => ({
      contents: REFUSAL.replace('NAME', JSON.stringify(path)),
    }));
  },
};

/**
 * An `import` of one of Node's own modules reads everything that it exports, and with it loads what nobody asked for:
 * node:http brings undici for its WebSocket, a fifth of the start-up time and 6 MB. Taken so, nothing is read unasked.
 */
const takeBuiltins: Plugin = {
  name: 'take-builtins',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^node:/ }, ({ path, kind }) =>
      kind === 'require-call' ? { path, external: true } : { path, namespace: 'builtin' },
    );
    onLoad({ filter: /^node:/, namespace: 'builtin' }, ({ path }) => ({
      contents: `module.exports = process.getBuiltinModule(${JSON.stringify(path)});`,
    }));
  },
};

await makeDist(resolve(process.argv[2] ?? join(ROOT, 'dist')));

async function makeDist(dist: string): Promise<void> {
  const { name, version, license } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'));
  const about = JSON.stringify({ name, version, license, type: 'module' });
  const aboutOnly: Plugin = {
    name: 'about-only',
    setup: ({ onLoad }) =>
      onLoad({ filter: /[\\/]package\.json$/ }, ({ path }) =>
        path === join(ROOT, 'package.json') ? { contents: about, loader: 'json' } : undefined,
      ),
  };
  await rm(dist, { recursive: true, force: true });
  await mkdir(join(dist, 'intake'), { recursive: true });
  const common = {
    absWorkingDir: ROOT,
    bundle: true, // what is imported only when needed is still run only when needed
    minify: true,
    keepNames: true, // error classes are told by their names
    legalComments: 'none', // LICENSES.txt has the whole texts
    platform: 'node',
    format: 'esm',
    target: 'node24',
    banner: { js: PREAMBLE },
    metafile: true,
    logLevel: 'warning',
  } as const;
  const plugins = [leaveOut, dropUnused, takeBuiltins, aboutOnly];
  const inputs: string[] = [];
  for (const [file, source] of Object.entries(FILES)) {
    const outfile = join(dist, file);
    const options = {
      ...common,
      outfile,
      entryPoints: [join(ROOT, source)],
      plugins: [filesApart(source), ...plugins],
    };
    inputs.push(...Object.keys((await build(options)).metafile.inputs));
  }
  await copyFile(join(ROOT, 'src/intake/client.sh'), join(dist, 'intake/client.sh'));
  await writeFile(join(dist, 'package.json'), `${about}\n`);
  await writeFile(join(dist, 'sidehook.js'), LAUNCHER);
  await chmod(join(dist, 'sidehook.js'), 0o755);
  await writeFile(join(dist, 'LICENSES.txt'), await licensesOf(inputs));
}

/** The licences of all packages that these files come from, in their own words. */
async function licensesOf(inputs: readonly string[]): Promise<string> {
  const packages = new Set(inputs.flatMap((path) => /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1] ?? []));
  const texts = [...packages].map(async (path) => {
    const dir = join(ROOT, path);
    const { name, version, license } = JSON.parse(await readFile(join(dir, 'package.json'), 'utf8'));
    const files = (await readdir(dir)).filter((file) => /^(licen[cs]e|notice|copying)/i.test(file));
    const words = await Promise.all(files.map((file) => readFile(join(dir, file), 'utf8')));
    return `${name} ${version} (${license})\n\n${words.map((text) => text.trim()).join('\n\n')}\n`;
  });
  return (await Promise.all(texts)).join(`\n${'-'.repeat(80)}\n\n`);
}
