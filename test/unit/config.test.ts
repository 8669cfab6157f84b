import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmod, mkdir, mkdtempDisposable, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { parseArgs } from 'node:util';
import fc from 'fast-check';
import { CONFIG_FLAGS, type ConfigSources, describeConfig, loadConfig } from '../../src/config.ts';
import { OperationalError } from '../../src/core/errors.ts';

const NOWHERE = '/nonexistent/sidehook.yaml';

function load(sources: Partial<ConfigSources> = {}) {
  return loadConfig({ env: {}, defaultPath: NOWHERE, strict: true, ...sources });
}

/** The lines of complaint about these sources. */
function complaints(sources: Partial<ConfigSources>): string[] {
  try {
    load(sources);
  } catch (error) {
    assert.ok(error instanceof OperationalError, String(error));
    assert.equal(error.code, 'configuration');
    return error.message.split('\n');
  }
  return [];
}

async function aFile(text: string, name = 'sidehook.yaml') {
  const dir = await mkdtempDisposable(join(tmpdir(), 'config-'));
  const path = join(dir.path, name);
  await writeFile(path, text);
  return { dir: dir.path, path, [Symbol.asyncDispose]: () => dir.remove() };
}

describe('settings', () => {
  it('are complete with none given, typed and frozen to the bottom', () => {
    const { config, origins } = load();
    assert.deepEqual(config, {
      file: '/nonexistent/sidehook.yaml',
      run: { dir: '/run/sidehook', mode: 0o770 },
      state: { dir: '/var/lib/sidehook' },
      hooks: { dir: '/etc/sidehook/hooks.d', timeoutMs: 3_600_000 },
      engine: 'auto',
      scope: 'project',
      operations: ['backup', 'restore'],
      lease: { ttlMs: 60_000, unattendedMs: 21_600_000 },
      hold: { maxMs: 43_200_000, healthTimeoutMs: 120_000, unclean: 'warn', failedRestore: 'keep' },
      shutdown: { holds: 'release' },
      compat: [],
      log: { level: 'info', format: 'auto' },
    });
    assert.ok(Object.isFrozen(config) && Object.isFrozen(config.hold) && Object.isFrozen(config.operations));
    assert.deepEqual(origins['hold.max'], { from: 'default', name: 'default' });
  });

  it('are taken from the file, then the environment, then flags, and remember which', async () => {
    await using file = await aFile('# ours\nhooks:\n  timeout: 1m\nlease:\n  ttl: 1m\nhold.max: 1h\n');
    const { values } = parseArgs({ options: CONFIG_FLAGS, args: ['--lease-ttl', '3m'] });
    const env = { SIDEHOOK_HOOKS_TIMEOUT: '2m', SIDEHOOK_LEASE_TTL: '2m' };
    const { config, origins } = load({ configPath: file.path, env, flags: { ...values, json: true } });

    assert.deepEqual([config.hold.maxMs, config.hooks.timeoutMs, config.lease.ttlMs], [3_600_000, 120_000, 180_000]);
    assert.deepEqual(origins['hold.max'], { from: 'file', name: `${file.path}:6` });
    assert.deepEqual(origins['hooks.timeout'], { from: 'environment', name: 'SIDEHOOK_HOOKS_TIMEOUT' });
    assert.deepEqual(origins['lease.ttl'], { from: 'flag', name: '--lease-ttl' });
  });

  it('take the text of a file as it is written, lists and aliases included', async () => {
    await using file = await aFile(
      'run: {mode: 02770, owner: "1000:1001"}\noperations: &all [backup, prune]\nscope: [blog, 1e3, 0123]\nhooks:\n  # timeout: 1m\n',
    );
    const { config } = load({ configPath: file.path });
    assert.deepEqual(config.run, { dir: '/run/sidehook', mode: 0o2770, uid: 1000, gid: 1001 });
    assert.deepEqual(config.operations, ['backup', 'prune']);
    assert.deepEqual(config.scope, ['blog', '1e3', '0123']);
  });

  it('take an empty variable as unset', () => {
    assert.equal(load({ env: { SIDEHOOK_SCOPE: '', SIDEHOOK_COMPAT: '' } }).origins.scope.from, 'default');
  });

  it('read a value from the file that a _FILE variable names, and refuse both at once', async () => {
    await using file = await aFile(' host\n', 'scope');
    const env = { SIDEHOOK_SCOPE_FILE: file.path };
    assert.equal(load({ env }).config.scope, 'host');
    assert.match(load({ env }).origins.scope.name, /^SIDEHOOK_SCOPE_FILE \(.*scope\)$/);
    assert.match(complaints({ env: { ...env, SIDEHOOK_SCOPE: 'host' } })[0] ?? '', /SIDEHOOK_SCOPE is set too/);
    assert.match(
      complaints({ env: { SIDEHOOK_SCOPE_FILE: NOWHERE } })[0] ?? '',
      /^SIDEHOOK_SCOPE_FILE: .*no such file/,
    );
  });

  it('keep what a _FILE variable points to out of the message', async () => {
    await using file = await aFile('hunter2:x', 'shadow');
    const lines = complaints({ env: { SIDEHOOK_ENGINE_FILE: file.path } });
    assert.equal(lines.length, 1);
    assert.match(lines[0] ?? '', /^engine \(SIDEHOOK_ENGINE_FILE .*\): expected auto or docker or kubernetes or none/);
    assert.doesNotMatch(lines[0] ?? '', /hunter2/);
  });
});

describe('mistakes in settings', () => {
  it('are all said at once, with key, place, what was expected and what came', async () => {
    await using file = await aFile('hooks:\n  timeout: soon\n  timeuot: 1m\nlog: loud\n');
    const env = { SIDEHOOK_HOLD_MAX: '30', SIDEHOOK_RUN_MODE: '0999' };
    assert.deepEqual(complaints({ configPath: file.path, env, flags: { engine: 'dokcer' } }), [
      `hooks.timeout (${file.path}:2): expected a duration such as 30s, 10m or 1h30m, at most 24d, got "soon"`,
      `${file.path}:3: unknown key "hooks.timeuot"; the nearest known one is hooks.timeout`,
      `${file.path}:4: log: expected a mapping of settings`,
      'hold.max (SIDEHOOK_HOLD_MAX): expected a duration such as 30s, 10m or 1h30m, at most 24d, got "30"',
      'run.mode (SIDEHOOK_RUN_MODE): expected an octal mode such as 0770, in which the owner may do everything, got "0999"',
      'engine (--engine): expected auto or docker or kubernetes or none, got "dokcer"',
    ]);
  });

  it('are found even where a later source would win', () => {
    assert.equal(complaints({ env: { SIDEHOOK_ENGINE: 'x' }, flags: { engine: 'none' } }).length, 1);
  });

  const bad: Record<string, readonly string[]> = {
    SIDEHOOK_RUN_DIR: ['run', './run', '/', '//', '/run/../etc', '/run/\0x'],
    SIDEHOOK_RUN_OWNER: ['root', ':', '-1', '1:2:3', '4294967295', '1000:'],
    SIDEHOOK_RUN_MODE: ['77', 'rwx', '0o', '0070', '17770', '888'],
    SIDEHOOK_HOOKS_TIMEOUT: ['0s', '25d', '-1s', '1', 'forever'],
    SIDEHOOK_OPERATIONS: ['1', 'Backup', 'a b', 'backup,', ',', '-x', `a${'b'.repeat(32)}`, '../x'],
    SIDEHOOK_SCOPE: ['host,blog', 'project,blog', 'Blog', '-blog', 'a/b'],
    SIDEHOOK_LOG_LEVEL: ['INFO', 'trace'],
  };
  for (const [variable, values] of Object.entries(bad)) {
    it(`are refused: ${variable}`, () => {
      for (const value of values) assert.equal(complaints({ env: { [variable]: value } }).length, 1, value);
    });
  }

  it('name the nearest variable, and leave alone what hooks, clients and Kubernetes set', () => {
    assert.deepEqual(complaints({ env: { SIDEHOOK_HOOK_TIMEOUT: '1m' } }), [
      'unknown variable "SIDEHOOK_HOOK_TIMEOUT"; the nearest known one is SIDEHOOK_HOOKS_TIMEOUT',
    ]);
    const names = 'OPERATION STATE JOB RUN_ID HOOK TARGET OUTCOME STATUS STEP DIR RETURN RETURN_A PARAM_X SERVICE_HOST';
    const more = 'PORT PORT_80_TCP_ADDR DB_SERVICE_PORT SERVICE_PORT_HTTP';
    const env = Object.fromEntries(`${names} ${more}`.split(' ').map((name) => [`SIDEHOOK_${name}`, 'x']));
    assert.deepEqual(complaints({ env }), []);
    assert.equal(
      complaints({ env: { SIDEHOOK_RETURNS: 'x', SIDEHOOK_STATES: 'x', SIDEHOOK_JOB_FILE: 'x' } }).length,
      3,
    );
  });

  it('in names are passed over unless strict, those in values never', () => {
    assert.doesNotThrow(() => load({ env: { SIDEHOOK_X: '1' }, strict: false }));
    assert.throws(() => load({ env: { SIDEHOOK_ENGINE: 'x' }, strict: false }), { code: 'configuration' });
  });

  it('include whatever is not supported yet, by name', async () => {
    const values = {
      'inspect.root': '/data',
      'host.enter': 'nsenter',
      'helper.images': '[alpine]',
      compat: 'offen',
      'http.listen': '":80"',
      clients: '{a: {}}',
    };
    for (const [key, value] of Object.entries(values)) {
      await using file = await aFile(`${key}: ${value}\n`);
      const lines = complaints({ configPath: file.path, strict: false });
      assert.equal(lines.length, 1, key);
      assert.match(lines[0] ?? '', new RegExp(`^${key} \\(.*:1\\): .*not supported yet`));
    }
    await using none = await aFile('host: {enter: none}\nhttp: {listen: off}\ncompat:\nhelper: {images: []}\n');
    assert.deepEqual(complaints({ configPath: none.path }), []);
  });

  it('in the file itself are told with their line', async () => {
    const texts = ['a: 1\n---\nb: 1\n', 'hold:\n  max: 1h\n  max: 2h\n', '- 1\n', 'hold: {max: 1h}\nhold.max: 2h\n'];
    for (const text of [...texts, 'scope: !x y\n', 'scope: {a: b}\n', '__proto__: {x: 1}\n', '? [a]\n: b\n']) {
      await using file = await aFile(text);
      const lines = complaints({ configPath: file.path });
      assert.ok(lines.length > 0, text);
      for (const line of lines) assert.match(line, /sidehook\.yaml:[1-3]\b/, text);
    }
  });

  it('include a named file that is not there, but not an absent default', async () => {
    assert.match(complaints({ configPath: NOWHERE })[0] ?? '', /^read .*: no such file$/);
    assert.deepEqual(complaints({}), []);
    assert.match(complaints({ configPath: tmpdir() })[0] ?? '', /is a directory/);
  });

  it('never make it throw anything else, whatever the file says', async () => {
    await using file = await aFile('');
    const text = fc.oneof(
      fc.string(),
      fc.stringMatching(/^((hooks|run|scope| {2}max|- a|\? |&a|\*a|!t|: |\{|\[|\n| ){0,12})$/),
    );
    await fc.assert(
      fc.asyncProperty(text, async (yaml) => {
        await writeFile(file.path, yaml);
        complaints({ configPath: file.path });
      }),
    );
  });
});

describe('places', () => {
  it('of hooks, state and configuration lie apart from what clients can write', async () => {
    await using file = await aFile('');
    const run = join(file.dir, 'run');
    const paths = { SIDEHOOK_RUN_DIR: run, SIDEHOOK_STATE_DIR: `${run}/state`, SIDEHOOK_HOOKS_DIR: `${run}/` };
    const lines = complaints({ env: paths });
    assert.match(lines[0] ?? '', /^hooks\.dir .*: lies in run\.dir/);
    assert.match(lines[1] ?? '', /^state\.dir .*: lies in run\.dir/);
    assert.match(
      complaints({ configPath: file.path, env: { SIDEHOOK_RUN_DIR: file.dir } })[0] ?? '',
      /^the configuration/,
    );
    assert.match(
      complaints({ env: { SIDEHOOK_RUN_DIR: '/var/lib/sidehook/run' } })[0] ?? '',
      /^run\.dir .*lies in state/,
    );
    assert.deepEqual(
      complaints({ env: { ...paths, SIDEHOOK_STATE_DIR: `${run}-state`, SIDEHOOK_HOOKS_DIR: file.dir } }),
      [`run.dir (${run}): lies in hooks.dir (${file.dir}), which no client may have`],
    );
  });

  it('are seen through symlinks, also where nothing is yet', async () => {
    await using file = await aFile('');
    const run = join(file.dir, 'run');
    await mkdir(join(run, 'sub'), { recursive: true });
    await symlink(join(run, 'sub'), join(file.dir, 'link'));
    const env = { SIDEHOOK_RUN_DIR: run, SIDEHOOK_STATE_DIR: join(file.dir, 'link', 'not-yet', 'state') };
    assert.match(complaints({ env })[0] ?? '', /^state\.dir .*lies in run\.dir/);
  });

  it('are seen through a directory that is mounted twice', { skip: process.getuid?.() !== 0 }, async () => {
    await using file = await aFile('');
    const [run, state] = [join(file.dir, 'run'), join(file.dir, 'state')];
    await mkdir(run);
    await mkdir(state);
    const code = `import { loadConfig } from ${JSON.stringify(new URL('../../src/config.ts', import.meta.url).href)};
      const env = { SIDEHOOK_RUN_DIR: process.argv[1], SIDEHOOK_STATE_DIR: process.argv[2] + '/journal' };
      try { loadConfig({ env, defaultPath: '/nonexistent' }); } catch ({ message }) { process.stdout.write(message); }`;
    const script = 'mount --bind "$1" "$2" && exec "$3" --input-type=module -e "$4" "$1" "$2"';
    const args = ['-m', 'sh', '-c', script, 'sh', run, state, process.execPath, code];
    assert.match(execFileSync('unshare', args).toString(), /^state\.dir .*lies in run\.dir/);
  });

  it('of the configuration may not be writable by others', async () => {
    await using file = await aFile('');
    await chmod(file.path, 0o666);
    assert.match(complaints({ configPath: file.path })[0] ?? '', /writable by others/);
  });
});

describe('printed settings', () => {
  it('name value and origin, and mask what is secret', () => {
    const text = describeConfig(load({ env: { SIDEHOOK_STATE_DIR: '/var/hunter2/x' } }), ['hunter2']);
    assert.match(text, /^state\.dir +\/var\/\*\*\*\/x +SIDEHOOK_STATE_DIR$/m);
    assert.match(text, /^operations +backup,restore +default$/m);
    assert.match(text, /^inspect\.root +none +default$/m);
  });
});
