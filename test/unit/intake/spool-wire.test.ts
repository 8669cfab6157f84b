import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { OperationalError } from '../../../src/core/errors.ts';
import { isRemoteType } from '../../../src/intake/spool-folder.ts';
import { formatAnswer, LARGEST_REQUEST, parseName, parseRequestText } from '../../../src/intake/spool-wire.ts';

const ID = '026c25f6-7f34-4257-b0ef-b9cb71c1e4bd.1';

function parse(text: string | Uint8Array): unknown {
  return parseRequestText(typeof text === 'string' ? Buffer.from(text) : text, ID);
}

function refusalOf(text: string | Uint8Array): string {
  try {
    parse(text);
  } catch (error) {
    assert.ok(error instanceof OperationalError, String(error));
    assert.equal(error.code, 'invalid-request');
    return error.message;
  }
  return 'no refusal';
}

describe('a request file', () => {
  it('becomes an object of strings as they came, with the parameters apart and the id of its name', () => {
    const text = 'version=1\noperation=backup\nstate=pre\nwait=\nparam.A=1=2\nparam.b= x \nend=1\n';
    assert.deepEqual(parse(text), {
      ...{ id: ID, version: '1', operation: 'backup', state: 'pre', wait: '' },
      params: { A: '1=2', b: ' x ' },
    });
  });

  it('keeps keys that it does not know, for the parser to refuse', () => {
    assert.deepEqual(parse('colour=red\nend=1\n'), { id: ID, colour: 'red', params: {} });
  });

  it('cannot reach the prototype of anything', () => {
    const parsed = parse('__proto__=x\nparam.__proto__=y\nend=1\n') as { params: object };
    assert.deepEqual(Object.keys(parsed), ['__proto__', 'id', 'params']);
    assert.deepEqual(Object.keys(parsed.params), ['__proto__']);
    assert.equal(Object.getPrototypeOf(parsed), Object.prototype);
  });

  for (const [what, text, message] of [
    ['nothing at all', '', /half a file/],
    ['half a file', 'version=1\noperation=back', /half a file/],
    ['a file without its last newline', 'version=1\nend=1', /half a file/],
    ['more after the end', 'version=1\nend=1\nstate=pre\n', /half a file/],
    ['an end in the middle', 'end=1\nversion=1\nend=1\n', /"end=1"/],
    ['a line that is none', 'version\nend=1\n', /expected key=value, got "version"/],
    ['a value without a key', '=1\nend=1\n', /expected key=value/],
    ['a parameter without a name', 'param.=1\nend=1\n', /expected key=value/],
    ['an id of its own', 'id=1\nend=1\n', /expected key=value, got "id=1"/],
    ['a key that comes twice', 'state=pre\nstate=post\nend=1\n', /"state": expected once/],
    ['a parameter that comes twice', 'param.A=1\nparam.A=1\nend=1\n', /"param.A": expected once/],
    ['binary junk', Buffer.from([0x76, 0xff, 0xfe, 0x00, 0x0a]), /expected UTF-8 text/],
    ['too much', 'x'.repeat(LARGEST_REQUEST + 1), /at most 65536 bytes/],
  ] as const) {
    it(`is refused in one line when it is ${what}`, () => {
      assert.match(refusalOf(text), message);
      assert.doesNotMatch(refusalOf(text), /\n/);
    });
  }

  it('is parsed or refused, whatever its bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), fc.boolean(), (bytes, ends) => {
        try {
          parse(ends ? Buffer.concat([bytes, Buffer.from('\nend=1\n')]) : bytes);
        } catch (error) {
          assert.ok(error instanceof OperationalError);
        }
      }),
    );
  });
});

describe('an answer file', () => {
  it('says everything, a line each, and its end', () => {
    const answer = { exitCode: 3, runId: 'run-1', message: 'it failed', notes: ['one', 'two'] };
    assert.equal(formatAnswer(answer), 'exit=3\nrun=run-1\nmessage=it failed\nnote.1=one\nnote.2=two\nend=1\n');
  });

  it('lets no text pass for another line, drive a terminal, or grow without bound', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'binary' }),
        fc.array(fc.string({ unit: 'binary' }), { maxLength: 5 }),
        (message, notes) => {
          const text = formatAnswer({ exitCode: 1, message, notes });
          assert.equal(text.split('\n').length, notes.length + 4);
          // biome-ignore lint/suspicious/noControlCharactersInRegex: there may be none
          assert.doesNotMatch(text.replaceAll('\n', ''), /[\u0000-\u001f\u007f-\u009f]/);
        },
      ),
    );
    const long = formatAnswer({ exitCode: 1, message: 'x'.repeat(1e6), notes: Array(1e4).fill('y'.repeat(1e4)) });
    assert.ok(long.length < 512 * 1024, String(long.length));
    assert.match(long, /note\.201=9800 more notes are left out\nend=1\n$/);
  });
});

describe('the name of a request', () => {
  it('is CLIENT.N with an ending, and nothing else', () => {
    assert.deepEqual(parseName(`${ID}.req`), { id: ID, sender: ID.slice(0, -2), stage: 'req' });
    assert.deepEqual(parseName(`${ID}.got`), { id: ID, sender: ID.slice(0, -2), stage: 'got' });
    for (const name of [
      ...['.req', 'x.1.req', '../../../etc/12345678.1.req', '12345678/../x.1.req', '.2345678.1.req', '-2345678.1.req'],
      ...[`${ID}.req\n`, `${ID}.ans`, `${ID}`, '12345678.x.req', '12345678.req', `${'a'.repeat(65)}.1.req`],
    ]) {
      assert.equal(parseName(name), undefined, name);
    }
  });
});

describe('file systems', () => {
  it('are known to be shared with other kernels, or not', () => {
    for (const type of [0x6969, 0xff534d42, -11317950, 0x65735546])
      assert.equal(isRemoteType(type), true, String(type));
    for (const type of [0xef53, 0x01021994, 0x58465342, 0x9123683e]) assert.equal(isRemoteType(type), false);
  });
});
