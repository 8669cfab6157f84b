/** The engine's way to send two streams down one connection. */
import type { Readable } from 'node:stream';
import type { Output } from '../core/ports.ts';

const HEADER_BYTES = 8;
const NOTHING = Buffer.alloc(0);
const STREAMS: readonly (Output['stream'] | undefined)[] = ['out', 'out', 'err', 'err'];

/**
 * Takes the engine's frames apart and hands on what they carry, as it comes, no faster than `sink` takes it; no frame
 * is ever kept whole. Resolves at the stream's end.
 * @throws when the stream breaks, or ends within a frame
 */
export async function readFrames(stream: Readable, sink: (output: Output) => Promise<void>): Promise<void> {
  let header = NOTHING;
  let name: Output['stream'] = 'out';
  let left = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    let rest = chunk;
    while (rest.length > 0) {
      if (left > 0) {
        const bytes = rest.subarray(0, left);
        left -= bytes.length;
        rest = rest.subarray(bytes.length);
        await sink({ stream: name, bytes });
        continue;
      }
      const missing = HEADER_BYTES - header.length;
      header = Buffer.concat([header, rest.subarray(0, missing)]);
      rest = rest.subarray(missing);
      if (header.length < HEADER_BYTES) continue;
      const known = STREAMS[header.readUInt8(0)];
      if (known === undefined) throw new Error('the engine sent what is no frame');
      name = known;
      left = header.readUInt32BE(4);
      header = NOTHING;
    }
  }
  if (left > 0 || header.length > 0) throw new Error('the connection was cut within a frame');
}
