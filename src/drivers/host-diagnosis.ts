import { closeSync, openSync, readSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import type { Outcome } from '../core/result.ts';

type Broken = Extract<Outcome, { readonly status: 'broken' }>;

/** How a file begins: enough for its `#!` line or an ELF header. */
export type Beginning = Uint8Array;

const BEGINNING_BYTES = 256; // as many as the kernel looks at
const BYTE_ORDER_MARK = '\u00ef\u00bb\u00bf'; // as it looks in Latin-1
const ELF = '\u007fELF';

/** Reads how a file begins; undefined if it cannot be read. */
export function readBeginning(path: string): Beginning | undefined {
  try {
    const file = openSync(path, 'r');
    try {
      const bytes = Buffer.alloc(BEGINNING_BYTES);
      return bytes.subarray(0, readSync(file, bytes));
    } finally {
      closeSync(file);
    }
  } catch {
    return undefined;
  }
}

/**
 * Says why the kernel will not run this. Asked before, since some C libraries then run it as a shell script after all,
 * which for text is luck and for anything else a mishap.
 */
export function brokenByBeginning(beginning: Beginning): Broken | undefined {
  const text = latin1(beginning);
  if (text.startsWith('#!')) {
    return interpreterOf(beginning) === undefined ? broken(126, 'its #! line names no interpreter') : undefined;
  }
  if (text === '') return broken(126, 'it is empty');
  if (text.startsWith(BYTE_ORDER_MARK)) return broken(126, 'it begins with a byte order mark, and no #! line');
  return text.includes('\0') || text.startsWith(ELF) ? undefined : broken(126, 'it has no #! line, such as #!/bin/sh');
}

/** Says why a file could not be started here, as far as that can be seen without starting it; undefined: nothing. */
export async function findBroken(path: string, searchPath: string): Promise<string | undefined> {
  const beginning = readBeginning(path);
  if (beginning === undefined) return undefined; // executable, and not to be read: no reason to doubt it
  const broken = brokenByBeginning(beginning);
  if (broken !== undefined) return broken.why;
  const interpreter = interpreterOf(beginning);
  if (interpreter === undefined) return undefined;
  const places = [interpreter, ...(soughtBy(beginning) ?? [])];
  for (const place of places) {
    const candidates = place.includes('/') ? [place] : searchPath.split(':').map((dir) => `${dir}/${place}`);
    const found = await Promise.all(candidates.map(isThere));
    if (!found.includes(true))
      return `interpreter ${quoted(place)} was not found${hasCarriageReturn(beginning) ? `: ${CRLF}` : ''}`;
  }
  return undefined;
}

/** What `env` would look for in the PATH. */
function soughtBy(beginning: Beginning): readonly string[] | undefined {
  return /^#![ \t]*\S*\/env[ \t]+(?:-S[ \t]+)?([^\s=-][^\s=]*)(?:\s|$)/.exec(latin1(beginning))?.slice(1, 2);
}

function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** Says why a program could not be started at all. */
export async function brokenBySpawn(
  error: { readonly code?: string; readonly message: string },
  { file, beginning, cwd }: { readonly file: string; readonly beginning: Beginning | undefined; readonly cwd: string },
): Promise<Broken> {
  switch (error.code) {
    case 'ENOENT':
    case 'ENOTDIR': {
      if (
        !(await stat(cwd).then(
          (it) => it.isDirectory(),
          () => false,
        ))
      )
        return broken(78, `workdir ${cwd}: no such directory`);
      if (!(await isThere(file))) return broken(127, `${file}: not found`);
      const interpreter = beginning && interpreterOf(beginning);
      if (interpreter === undefined) return broken(127, 'its loader was not found: built for another C library?');
      return broken(
        127,
        `interpreter ${quoted(interpreter)} was not found${hasCarriageReturn(beginning) ? `: ${CRLF}` : ''}`,
      );
    }
    case 'EACCES':
    case 'EPERM':
      return broken(126, 'it or its interpreter is not executable for us, or its mount is noexec');
    case 'ENOEXEC':
      return broken(126, 'the kernel does not know its format');
    case 'ETXTBSY':
      return broken(126, 'it is open for writing');
    case 'E2BIG':
      return broken(126, 'its environment is too large: too many or too long parameters');
    default:
      return broken(70, error.message);
  }
}

/** What a bare exit code of such a file would hide. */
export function whyFailed(exitCode: number, beginning: Beginning | undefined): string | undefined {
  if (beginning === undefined) return undefined;
  const text = latin1(beginning);
  if (text.startsWith('#!')) {
    if (hasCarriageReturn(beginning)) return CRLF;
    const sought = /^#![ \t]*\S*\/env[ \t]+(?:-S[ \t]+)?(\S+)/.exec(text)?.[1];
    return exitCode === 127 && sought !== undefined ? `is its interpreter ${quoted(sought)} there?` : undefined;
  }
  return text.startsWith(ELF) && isForeign(beginning) && exitCode !== 1 ? 'built for another processor?' : undefined;
}

const CRLF = 'its #! line ends in a carriage return; save it with Unix line ends';

function interpreterOf(beginning: Beginning): string | undefined {
  return /^#![ \t]*([^ \t\n]+)/.exec(latin1(beginning))?.[1];
}

function hasCarriageReturn(beginning: Beginning | undefined): boolean {
  return beginning !== undefined && /^#![^\n]*\r(?:\n|$)/.test(latin1(beginning));
}

/** Whether an ELF header names another processor than our own program's does, and none that runs beside it. */
function isForeign(beginning: Beginning): boolean {
  const own = readBeginning('/proc/self/exe');
  const machine = beginning[18];
  const runsBeside: Record<number, readonly number[]> = { 62: [3], 183: [40] }; // x86-64: i386; aarch64: arm
  return own?.[18] !== undefined && machine !== own[18] && !runsBeside[own[18]]?.includes(machine ?? 0);
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
}

function quoted(text: string): string {
  return JSON.stringify(text);
}

function broken(exitCode: number, why: string): Broken {
  return { status: 'broken', exitCode, why };
}
