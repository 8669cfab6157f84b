import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { OperationalError } from '../../../src/core/errors.ts';
import { parseHookFile } from '../../../src/core/header.ts';

function parse(text: string, name = '10-hook') {
  return parseHookFile(
    { name, path: `/hooks.d/${name}`, text, head: text },
    { timeoutMs: 1000, operations: ['backup', 'restore'] },
  );
}

describe('the header of a hook file', () => {
  it('is not needed: TKLBAM’s hooks run on the host, at every state', () => {
    const hook = parse('#!/bin/sh\nexit 0\n');
    assert.deepEqual(hook.target, { kind: 'host' });
    assert.deepEqual(
      hook.actions.map(({ operation, state }) => `${operation}.${state}`),
      ['backup.pre', 'backup.inspect', 'backup.post', 'restore.pre', 'restore.inspect', 'restore.post'],
    );
    assert.deepEqual(hook.actions[0]?.program, { kind: 'executable', path: '/hooks.d/10-hook' });
  });

  for (const sign of ['#', '##', '//', '--', ';']) {
    it(`is read behind ${sign}`, () => {
      assert.equal(parse(`#!/bin/sh\n${sign} sidehook: timeout=5s\n`).actions[0]?.settings.timeoutMs, 5000);
    });
  }

  it('may stand on several lines, among the first twenty', () => {
    const text = `#!/bin/sh\n# sidehook: target=service:db on=backup.pre while=held\n# sidehook: timeout=30m user=postgres on-error=continue retries=2\n`;
    const { target, actions } = parse(text);
    assert.deepEqual(target, { kind: 'service', service: 'db' });
    assert.equal(actions.length, 1);
    const { settings, program } = actions[0] ?? assert.fail();
    assert.deepEqual(
      [settings.while, settings.timeoutMs, settings.user, settings.onError, settings.retries],
      ['held', 1_800_000, 'postgres', 'continue', 2],
    );
    assert.deepEqual(program, { kind: 'script', name: '10-hook', interpreter: ['/bin/sh'], text });
    const late = `#!/bin/sh\n${'\n'.repeat(19)}# sidehook: nonsense\n`;
    assert.deepEqual(parse(late).target, { kind: 'host' });
  });

  it('gives the interpreter one argument, as the kernel does', () => {
    const { program } =
      parse('#!/usr/bin/env -S python3 -u\n# sidehook: target=container:x\n').actions[0] ?? assert.fail();
    assert.ok(program.kind === 'script');
    assert.deepEqual(program.interpreter, ['/usr/bin/env', '-S python3 -u']);
  });

  it('reads every kind of target', () => {
    const targetOf = (text: string) => parse(`#!/bin/sh\n# sidehook: target=${text}\n`).target;
    assert.deepEqual(targetOf('host'), { kind: 'host' });
    assert.deepEqual(targetOf('container:a.b-c_1'), { kind: 'container', name: 'a.b-c_1' });
    assert.deepEqual(targetOf('service:shop/db'), { kind: 'service', project: 'shop', service: 'db' });
    assert.deepEqual(targetOf('label:role=db=main'), { kind: 'label', label: 'role', value: 'db=main' });
    assert.deepEqual(targetOf('pod:app.kubernetes.io/name=db,tier!=cache,!old,new;container=postgres'), {
      kind: 'pod',
      selector: [
        { label: 'app.kubernetes.io/name', is: 'equal', value: 'db' },
        { label: 'tier', is: 'other', value: 'cache' },
        { label: 'old', is: 'absent', value: '' },
        { label: 'new', is: 'there', value: '' },
      ],
      container: 'postgres',
    });
  });

  const bad: readonly [header: string, message: RegExp][] = [
    ['while=hold', /^hook 10-hook, line 2, while: expected running or held, got "hold"$/],
    ['timeot=3s', /^hook 10-hook, line 2, timeot: no such key; known are target, on/],
    ['timeout=3', /line 2, timeout: expected a duration/],
    ['target=servce:db', /line 2, target: expected host, container:NAME/],
    ['target=container:../x', /line 2, target: expected host/],
    ['on=backup', /line 2, on: expected OPERATION.STATE/],
    ['on=backup.captured', /captured is not supported/],
    ['on=bakcup.pre', /line 2, on: operation bakcup is not allowed; allowed are backup, restore/],
    ['on=,', /line 2, on: expected a list/],
    ['on=backup.post outcome=,', /line 2, outcome: expected a list/],
    ['session=yes', /line 2, session: not supported/],
    ['image=alpine', /line 2, image: not supported/],
    ['target=pod:', /expected key=value|pod:SELECTOR/],
    ['target=pod:app=x;container=', /pod:SELECTOR/],
    ['target=pod:!app=x', /pod:SELECTOR/],
    ['target=pod:app=x,', /pod:SELECTOR/],
    ['target=pod:app=$(id)', /pod:SELECTOR/],
    ['user=a;b', /line 2, user: expected a user/],
    ['nonsense', /line 2: expected key=value, got "nonsense"/],
    ['while=held while=running', /line 2, while: said twice/],
  ];
  it('does not save a hook that would hand words back, which nobody would take', () => {
    assert.throws(() => parse('#!/bin/sh\necho "PATH_X=1" >>"$SIDEHOOK_RETURN"\n'), {
      code: 'configuration',
      message: 'hook 10-hook, line 2, SIDEHOOK_RETURN: not supported by this version',
    });
  });

  for (const [header, message] of bad) {
    it(`that is wrong is an error that names file, line and key: ${header}`, () => {
      const text = `#!/bin/sh\n# sidehook: ${header}\n`;
      assert.throws(
        () => parse(text),
        (error) => error instanceof OperationalError && error.code === 'configuration' && message.test(error.message),
      );
    });
  }

  for (const line of ['# Sidehook: target=service:db', '# sidehook target=service:db', '// SIDEHOOK - on=backup.pre']) {
    it(`that is misspelt is no comment: ${line}`, () => {
      assert.throws(
        () => parse(`#!/bin/sh\n${line}\n`),
        /^OperationalError: hook 10-hook, line 2: expected sidehook: key=value/,
      );
    });
  }

  it('that comes too late is an error, and not passed over', () => {
    const late = `#!/bin/sh\n${'# licence\n'.repeat(19)}# sidehook: target=service:db\n`;
    assert.throws(() => parse(late), /line 21: expected a header within the first 20 lines/);
    assert.deepEqual(parse(late.replace('# licence\n', '')).target, { kind: 'service', service: 'db' });
  });

  it('is not looked for in what a script says of sidehook', () => {
    const text =
      '#!/bin/sh\n# sidehook runs this before a backup\necho "sidehook: target=x"\n# see sidehook: on=what\n';
    assert.deepEqual(parse(text).target, { kind: 'host' });
  });

  it('refuses to send into a container what is no script', () => {
    assert.throws(() => parse('# sidehook: target=container:x\n'), /its first line is no #! line/);
    const file = { name: 'a', path: '/a', head: '#!/bin/sh\n# sidehook: target=container:x\n' };
    assert.throws(() => parseHookFile(file, { timeoutMs: 1, operations: ['backup'] }), /no text of at most 1 MiB/);
  });
});
