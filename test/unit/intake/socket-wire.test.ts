import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { Answer } from '../../../src/core/result.ts';
import { decodeEvents, encodeEvent, LARGEST_LINE, type WireEvent } from '../../../src/intake/socket-wire.ts';

const anyText = fc.string({ unit: 'binary' });
const anyAnswer = fc.record(
  { exitCode: fc.nat(255), runId: anyText, message: anyText, notes: fc.array(anyText) },
  { requiredKeys: ['exitCode', 'notes'], noNullPrototype: true },
) as fc.Arbitrary<Answer>;
const anyBytes = fc.oneof(
  fc.uint8Array(),
  fc.string({ unit: 'binary' }).map((text) => new Uint8Array(Buffer.from(text))),
);
const anyEvent: fc.Arbitrary<WireEvent> = fc.oneof(
  fc.record({ type: fc.constant('accepted' as const), id: anyText }),
  fc.record({ stream: fc.constantFrom('out' as const, 'err' as const), bytes: anyBytes }).map((output) => ({
    type: 'output' as const,
    output,
  })),
  fc.record({ type: fc.constant('dropped' as const), bytes: fc.nat() }),
  anyAnswer.map((answer) => ({ type: 'answer' as const, answer })),
  fc.constant({ type: 'leased' as const }),
  fc.record({ type: fc.constant('abandoned' as const), why: anyText }),
);

describe('the stream of a socket', () => {
  it('gives back what was put in, byte for byte, wherever it is cut', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(anyEvent, { maxLength: 6 }),
        fc.array(fc.nat(40), { minLength: 1 }),
        async (events, cuts) => {
          const bytes = Buffer.from(events.map(encodeEvent).join('\n'));
          assert.deepEqual((await read(pieces(bytes, cuts))).map(plain), events.map(plain));
        },
      ),
    );
  });

  it('passes over what a later version may add, signs of life, and a line that a death tore', async () => {
    const events = await read([
      Buffer.from('\n{"type":"weather","sky":"blue"}\n\n{"type":"leased","more":1}\n{"type":"ans'),
    ]);
    assert.deepEqual(events, [{ type: 'leased' }]);
  });

  it('says of anything else that it is no event, and never hangs or gives junk', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (junk) => {
        const events = await read([junk, Buffer.from('\n')]).catch((error: unknown) => error);
        if (Array.isArray(events)) assert.deepEqual(events, []);
        else assert.ok(events instanceof Error);
      }),
    );
    for (const line of ['[]', 'null', '7', '{}', '{"type":"answer"}', '{"type":"answer","exitCode":256,"notes":[]}']) {
      await assert.rejects(read([Buffer.from(`${line}\n`)]), Error, line);
    }
    for (const line of ['{"type":"output","stream":"in","text":""}', '{"type":"answer","exitCode":1,"notes":[7]}']) {
      await assert.rejects(read([Buffer.from(`${line}\n`)]), Error, line);
    }
  });

  it('stops reading a line that does not end', async () => {
    let given = 0;
    async function* endless(): AsyncGenerator<Uint8Array> {
      for (;;) {
        given += 65_536;
        yield Buffer.alloc(65_536, 'x');
      }
    }
    await assert.rejects(read(endless()), /a line of over/);
    assert.ok(given <= LARGEST_LINE + 65_536);
  });

  it('writes text that jq can read as it is, and only what is none as base64', () => {
    const encode = (bytes: Uint8Array) => JSON.parse(encodeEvent({ type: 'output', output: { stream: 'out', bytes } }));
    assert.deepEqual(encode(Buffer.from('grün\n')), { type: 'output', stream: 'out', text: 'grün\n' });
    assert.deepEqual(encode(Buffer.from([0xff, 0x00])), { type: 'output', stream: 'out', base64: '/wA=' });
  });
});

async function read(chunks: AsyncIterable<Uint8Array> | readonly Uint8Array[]): Promise<WireEvent[]> {
  const events: WireEvent[] = [];
  async function* all(): AsyncGenerator<Uint8Array> {
    yield* chunks;
  }
  for await (const event of decodeEvents(all())) events.push(event);
  return events;
}

function pieces(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const found: Buffer[] = [];
  for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
    const size = Math.max(1, cuts[turn % cuts.length] ?? 1);
    found.push(bytes.subarray(at, at + size));
    at += size;
  }
  return found;
}

/** Buffer or Uint8Array is all the same. */
function plain(event: WireEvent): unknown {
  if (event.type !== 'output') return { ...event };
  return { ...event, output: { ...event.output, bytes: [...event.output.bytes] } };
}
