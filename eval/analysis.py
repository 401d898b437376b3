def analyse(evaluation, measured):
    return {}
