/** Loaded first (`--import`) in a process with a break: prints each invariant that fails, even if the code catches the error. */
import { InvariantError } from '../../src/error.ts';

InvariantError.onFailure = ({ message }) => process.stderr.write(`COLO_INVARIANT ${message}\n`);
